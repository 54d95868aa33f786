"""docs/api.md as data: the resources it has, their fields and what they are, and their examples. And whether an answer is as
it says."""
import json
import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / 'docs/api.md'
TIME = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z')

IS = {
    'text': lambda v: isinstance(v, str),
    'time': lambda v: isinstance(v, str) and TIME.fullmatch(v),
    'count': lambda v: type(v) is int and v >= 0,
    'number': lambda v: type(v) in (int, float),
    'yes or no': lambda v: isinstance(v, bool),
    'object': lambda v: isinstance(v, dict),
    'counts by name': lambda v: isinstance(v, dict) and all(type(n) is int and n >= 0 for n in v.values()),
    'list': lambda v: isinstance(v, list),
    'list of texts': lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v),
}


class Field:
    """A row of a table: `kind` is a key of IS; may it be null; may a list be empty?"""

    def __init__(self, kind):
        self.kind, *more = kind.split(', ')
        self.kind = self.kind.removesuffix(' or null')
        self.null = ' or null' in kind
        self.empty = 'may be empty' in more
        assert self.kind in IS, kind


class Resource:
    def __init__(self, title, text):
        self.title = title
        self.method, self.target = re.search(r'^`(GET|POST) /api/v1/(\S*)`', text, re.M).groups()
        self.fields, self.same = {}, {}
        table = re.search(r'^\| field \| is \| meaning \|\n((?:\|.*\n)+)', text, re.M)
        for names, kind in re.findall(r'^\| (`.*?) \| (.*?) \|', table.group(1) if table else '', re.M):
            for name in re.findall(r'`(.*?)`', names):
                if kind.startswith('as '):
                    self.same[name] = kind.removeprefix('as ').strip('`')
                else:
                    self.fields[name] = Field(kind)
        example = re.search(r'^```json\n(.*?)^```', text, re.M | re.S)
        self.example = json.loads(example.group(1)) if example else None

    @property
    def path(self):
        """As the index has it."""
        return re.sub(r'\bID\b', '*', self.target.partition('?')[0])

    @property
    def kind(self):
        return 'read' if self.method == 'GET' else 'action'


def resources():
    """By title, those that take their fields from another filled in."""
    text = DOCUMENT.read_text()
    parts = re.split(r'^### (.+)\n', text, flags=re.M)
    found = {title: Resource(title, re.split(r'^## ', body, flags=re.M)[0]) for title, body in zip(parts[1::2], parts[2::2])}
    for r in found.values():
        for name, other in r.same.items():
            title, _, place = other.partition(': ')
            for field, what in list(found[title].fields.items()):
                if field.startswith(place + '.'):
                    r.fields[(name + field.removeprefix(place)).lstrip('.')] = what
    return found


def differences(fields, value, at=''):
    """What is not as the rows say, as texts."""
    out = []
    if isinstance(value, dict):
        kind = fields.get(at)
        if kind and kind.kind == 'counts by name':
            return out
        prefix = at + '.' if at else ''
        known = {re.match(r'[\w-]+', f.removeprefix(prefix)).group(0) for f in fields if f.startswith(prefix) and f != at and f != '[]'}
        out += [f'{prefix}{k} is documented and not there' for k in known - set(value)]
        out += [f'{prefix}{k} is there and not documented' for k in set(value) - known]
        for k in known & set(value):
            out += differences_of_field(fields, value[k], prefix + k)
    elif isinstance(value, list):
        for item in value:
            out += differences(fields, item, at + '[]') if isinstance(item, dict) else []
    return out


def differences_of_field(fields, value, at):
    field = fields.get(at)
    if field is None:
        return [f'{at} has no row of its own']
    if value is None:
        return [] if field.null else [f'{at} is null']
    if not IS[field.kind](value):
        return [f'{at} is no {field.kind}: {value!r}']
    if field.kind.startswith('list') and not value and not field.empty:
        return [f'{at} is empty']
    return differences(fields, value, at)
