"""JSON and query strings as the log service's Go code reads and writes them (HP 1.3, 1.7, 1.11)."""
import codecs
import json
import re

FIELDS = ('level', 'pos', 'out', 'time', 'args')
ZERO_TIME = '0001-01-01T00:00:00Z'
_RFC3339 = re.compile(r'\d{4}-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)([.,]\d+)?'
                      r'(Z|[+-]\d\d:\d\d)\Z', re.A)
_INT64 = 1 << 63


class BadJSON(ValueError):
    """What Go's decoder would have refused."""


def _one_by_one(error):
    # Go replaces every invalid byte by a character of its own; Python would take runs of them.
    return '\ufffd', error.start + 1


codecs.register_error('go-replace', _one_by_one)


class _Float(str):
    """A number that is no integer: legal JSON, but no value for an int field."""


def _constant(name):
    raise BadJSON('invalid character in ' + name)


_decoder = json.JSONDecoder(parse_float=_Float, parse_constant=_constant)


def first_value(body):
    """Decodes the first JSON value of `body` (bytes) and ignores whatever follows it."""
    text = body.decode('utf-8', 'go-replace').lstrip(' \t\r\n')
    if not text:
        raise BadJSON('EOF')
    try:
        return _decoder.raw_decode(text)[0]
    except BadJSON:
        raise
    except (ValueError, RecursionError) as exc:
        raise BadJSON('invalid JSON') from exc


def _text(value, name):
    if value is None:
        return ''
    if not isinstance(value, str) or isinstance(value, _Float):
        raise BadJSON('cannot unmarshal into field ' + name)
    if any('\ud800' <= ch <= '\udfff' for ch in value) if not value.isascii() else False:
        return re.sub('[\ud800-\udfff]', '\ufffd', value)
    return value


def _time(value):
    if value is None:
        return ZERO_TIME
    if not isinstance(value, str) or isinstance(value, _Float):
        raise BadJSON('Time.UnmarshalJSON: input is not a JSON string')
    match = _RFC3339.match(value)
    if match is None:
        raise BadJSON('parsing time')
    month, day, hour, minute, second = (int(part) for part in match.groups()[:5])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        raise BadJSON('parsing time: out of range')
    return value


def _args(value):
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadJSON('cannot unmarshal into field args')
    return {_text(k, 'args'): _text(v, 'args') for k, v in value.items()}


def _pos(value):
    if value is None:
        return 0
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise BadJSON('cannot unmarshal into field pos')
    return value


def _line(value):
    if value is None:
        return {'level': '', 'pos': 0, 'out': '', 'time': ZERO_TIME, 'args': None}
    if not isinstance(value, dict):
        raise BadJSON('cannot unmarshal element')
    if not value.keys() <= _FIELD_SET:          # other spellings, and unknown fields to drop
        folded = {}
        for key, item in value.items():
            low = key.lower()
            if low in _FIELD_SET:
                folded[low] = item
        value = folded
    return {'level': _text(value.get('level'), 'level'), 'pos': _pos(value.get('pos')),
            'out': _text(value.get('out'), 'out'), 'time': _time(value.get('time')),
            'args': _args(value.get('args'))}


_FIELD_SET = frozenset(FIELDS)


def lines(body):
    """The array of lines in a PUT body, as a list of dicts with exactly the five fields."""
    value = first_value(body)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadJSON('cannot unmarshal into a slice of lines')
    return [_line(item) for item in value]


_ESCAPES = {'<': '\\u003c', '>': '\\u003e', '&': '\\u0026', '\u2028': '\\u2028',
            '\u2029': '\\u2029'}
_NEEDS = re.compile('[<>&\u2028\u2029]')


def dumps(value, indent=None):
    """JSON as Go's encoder writes it: compact or indented, HTML-escaped, no ASCII escaping."""
    separators = (',', ': ') if indent else (',', ':')
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    text = _NEEDS.sub(lambda match: _ESCAPES[match.group()], text)
    return (text + '\n').encode('utf-8', 'surrogateescape')


_HEX = re.compile('%(?![0-9A-Fa-f]{2})')
_PCT = re.compile(rb'%([0-9A-Fa-f]{2})')


def unescape(text):
    """Query-decodes one component ('+' is a space); None if an escape is malformed."""
    if _HEX.search(text):
        return None
    raw = text.replace('+', ' ').encode('latin-1')
    raw = _PCT.sub(lambda match: bytes([int(match.group(1), 16)]), raw)
    return raw.decode('utf-8', 'surrogateescape')


def query(raw):
    """Query parameters, first value of each. As in Go, a pair with a raw ';' is lost."""
    values = {}
    for part in raw.split('&'):
        if not part or ';' in part:
            continue
        name, _, value = part.partition('=')
        if '%' in part or '+' in part or not part.isascii():
            name, value = unescape(name), unescape(value)
            if name is None or value is None:
                continue
        values.setdefault(name, value)
    return values
