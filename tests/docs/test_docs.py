"""Every command in the documentation is run: here, in a sandbox, or by a test elsewhere that elsewhere.py names. A command
that is neither fails."""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from commands import TOP, all_commands, documents
from elsewhere import ELSEWHERE
from gateway import BINARY
from sandbox import BUILD_STREAM

PAGES = ('tailrace.8', 'tailrace.yaml.5', 'tailracectl.8')


def manual_directories():
    """Where the pages are: installed beside the program, or in its build tree."""
    at = Path(BINARY).resolve().parent
    return [*(at.parent / 'share/man').glob('man*'), at / 'docs/man']


def page(name):
    """The built page of that name."""
    for directory in manual_directories():
        if (directory / name).exists():
            return directory / name
    raise AssertionError(f'{name} is neither installed nor built beside {BINARY}')


def found_commands():
    """Each text once, with all places where it stands."""
    texts = {}
    for command in all_commands([page(name) for name in PAGES]):
        texts.setdefault(command.text, []).append(f'{command.where}:{command.line}')
    return texts


COMMANDS = found_commands()

# Commands after which the gateway is another one, or gone: each has a sandbox to itself.
UNSETTLING = r'tailracectl (drain|upgrade|log-level \w+|dead replay --all).*'

# Exit statuses other than 0 that are right: what is found is what is told.
STATUS = [
    (r'tailrace check --explain .*', {0, 1}),
    (r'tailracectl policy explain .*', {0, 1}),
    (r'tailracectl top', {0}),
    (r'tailrace doctor.*', {0, 1}),         # the stand-in has no WebSocket of a manager, no internet behind it
    (r'tailrace spool (verify|export) FILE.*', {0, 1}),
    (r'dmesg \| tail', {0, 1}),             # for root, on some systems
    (r'curl .*\| grep .*', {0, 1}),         # nothing to complain of
]

# What is to be read in the answer, or the command did not do what it is there for.
SHOWS = [
    (r'tailracectl( --json)? status', r'(?i)ledger|accepted'),
    (r'tailracectl streams.*', r'(?i)stream|build|no'),
    (r'tailracectl dead list', 'refused|invalid'),
    (r'tailrace spool stats', 'records'),
    (r'tailrace spool verify', 'sound|no damage|good|ok|0 '),
    (r'tailrace check', 'good|ok|sound'),
    (r'curl http://127.0.0.1:9464/metrics', 'tailrace_ledger_lines'),
    (r'curl http://127.0.0.1:9464/readyz', 'ready|ok'),
    (r'curl http://127.0.0.1:9464/api/v1/status', '"ledger"'),
    (r'sqlite3 .*ledger_view.*', 'accepted'),
    (r'openssl rand -hex 32', r'^[0-9a-f]{64}$'),
    (r'systemd-analyze .*', r'exposure level for tailrace.service: 1\.6'),
    (r'man tailrace.*', 'NAME'),
    (r'tailracectl tail .*', 'compiling|begin|^$'),
    (r'tailracectl denials', 'denied.example'),
    (r'grep deny .*', 'denied.example'),
]


def first(rows, text, default=None):
    for pattern, *rest in rows:
        if re.fullmatch(pattern, text):
            return rest[0]
    return default


def elsewhere(text):
    """(the test that runs it, why) of a command that is not run here, or None."""
    for pattern, test, why in ELSEWHERE:
        fits = re.fullmatch(pattern, text)
        if fits:
            return re.sub(r'\{(\d)\}', lambda m: fits.group(int(m.group(1))), test), why
    return None


def exists(test):
    """Whether the test, the fixture or the step is there."""
    name, _, step = test.partition(': ')
    if step:
        return step in (TOP / name).read_text()
    name, _, function = test.partition('::')
    return (TOP / name).exists() and (not function or f'def {function}(' in (TOP / name).read_text())


def fill_in(text, box, tmp_path):
    """The command with values in place of its capitals, and without what may be left out."""
    text = re.sub(r'\s*\[[^]]*\]', '', text).replace('...', '')
    values = {
        'HOST:PORT': 'github.com:443', 'ADDRESS': '10.1.2.3', 'FILE': str(box.damaged()), 'DIR': str(tmp_path / 'out'),
        'DIRECTORY': str(box.root / 'var/lib/tailrace'), 'COPY': str(box.damaged()), 'KEY': f"'{BUILD_STREAM}'",
        'STREAM': f"'{BUILD_STREAM}'", 'ACCOUNT': 'acct', 'NAME': 'build', 'PID': str(box.gateway.pid), 'TEXT': 'invalid',
        'SECONDS': '1', 'COMMAND': 'status', 'LEVEL': 'info', 'test_NAME': 'test_docs',
    }
    if ' dead ' in text:
        values['ID'] = str(box.dead_letter())
    if text.startswith('tailracectl tail '):    # as ^C ends it
        text = f'timeout -s INT 1 {text}; test $? = 124 -o $? = 130 -o $? = 0'
    if ' -o FILE' in text:
        values['FILE'] = str(tmp_path / 'out')
    if ' check -c FILE' in text or 'serve' in text:
        values['FILE'] = str(box.gateway.config_path)
    for name, value in sorted(values.items(), key=lambda item: -len(item[0])):
        text = re.sub(rf'(?<![\w/]){name}(?![\w:])', lambda _: value, text)
    return text


def prepared(text, box, tmp_path):
    """(command, directory): what it needs besides."""
    cwd = TOP if text.startswith(('grep -rn', 'PYTHONPATH=tests', 'git ', 'contrib/', 'promtool', 'systemd-analyze')) else tmp_path
    if 'spool.db' in text and '/spool.db' not in text or 'copy.db' in text:
        for name in ('spool.db', 'copy.db', 'spool.db.damaged-2026-01-02T03:04:05Z', 'spool.db.damaged-2026-01-02T03:04:05Z-wal'):
            if name != 'copy.db' or ' copy.db ' in text:
                shutil.copy(box.damaged() if not name.endswith('wal') else f'{box.damaged()}-wal', tmp_path / name)
    if text.startswith('chmod'):
        (box.root / 'etc/tailrace/private/server.key').touch()
    return text, cwd


def run_make(text, box):
    """A target that takes long is there, and knows what it would do."""
    tree = os.environ.get('TAILRACE_BUILD') or next(
        (str(p) for p in (Path(BINARY).resolve().parent, TOP) if (p / 'Makefile').exists()), None)
    assert tree, 'TAILRACE_BUILD names no build tree'
    return subprocess.run(['make', '-C', tree, '-n', *text.split()[1:]], capture_output=True, text=True, timeout=60)


def run_here(text, box, tmp_path):
    if text.startswith('make '):
        return run_make(text, box)
    command, cwd = prepared(fill_in(text, box, tmp_path), box, tmp_path)
    if text.startswith('PYTHONPATH=tests python3 -m standin.harness'):
        command += ' & pid=$!; sleep 1; kill $pid; wait $pid; test $? -lt 126 -o $? = 143'
    if text.startswith('man '):
        box.take_pages([page(name) for name in PAGES])
    return box.run(command, cwd)


@pytest.mark.parametrize('text', COMMANDS, ids=[re.sub(r'[^\x20-\x7e]|[\[\]]', '', t)[:70] for t in COMMANDS])
def test_command(text, make_sandbox, shared, tmp_path):
    other = elsewhere(text)
    if other and not other[0].startswith('self: '):
        assert exists(other[0]), f'{COMMANDS[text]}: {text}: {other[0]}, which should run it, is not there'
        return
    if other:
        text = other[0].removeprefix('self: ')
    box = make_sandbox() if re.fullmatch(UNSETTLING, text) else shared
    done = run_here(text, box, tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode in first(STATUS, text, {0}), (COMMANDS.get(text), text, done.returncode, said[-3000:])
    assert re.search(first(SHOWS, text, ''), said, re.M), (COMMANDS.get(text), text, said[-3000:])
    assert not re.search(r'is no command|unrecognized option|not found', said), (COMMANDS.get(text), text, said[-2000:])


def test_nothing_is_listed_that_nobody_reads():
    """A row whose commands are gone from the documentation goes, too."""
    unused = [row[0] for row in ELSEWHERE if not any(re.fullmatch(row[0], text) for text in COMMANDS)]
    assert not unused


# --- what stands beside commands ------------------------------------------------------------------

def anchors(path):
    """What a code host makes of the headings."""
    found = set()
    for heading in re.findall(r'^#+ (.*)$', path.read_text(), re.M):
        found.add(re.sub(r'[^\w\- ]', '', heading.replace('`', '').lower()).replace(' ', '-'))
    return found


@pytest.mark.parametrize('name', documents())
def test_links_lead_somewhere(name):
    text = re.sub(r'```.*?```', '', (TOP / name).read_text(), flags=re.S)
    bad = []
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match(r'[a-z]+:', link):
            continue
        path, _, anchor = link.partition('#')
        target = (TOP / name).parent / path if path else TOP / name
        if not target.exists() or anchor and anchor not in anchors(target):
            bad.append(link)
    assert not bad


def examples():
    found = []
    for name in documents():
        text = (TOP / name).read_text()
        for i, block in enumerate(re.findall(r'^```yaml\n(.*?)^```', text, re.M | re.S)):
            if 'harness:' in block and 'url:' in block:
                found.append(pytest.param(block, id=f'{name}-{i}'))
    return found


@pytest.mark.parametrize('text', examples())
def test_examples_of_configurations_load(text, shared, tmp_path):
    (tmp_path / 'tailrace.yaml').write_text(text)
    for name in re.findall(r'(?:certificate|key|ca): ([\w./-]+\.(?:pem|key))', text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    if 'private/server' in text:
        made = shared.run(f'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a.example '
                          f'-keyout {tmp_path}/private/server.key -out {tmp_path}/private/server.pem')
        assert made.returncode == 0, made.stderr
    text = text.replace('/var/lib/tailrace', str(tmp_path / 'spool'))
    done = subprocess.run([BINARY, 'check', '-c', str(tmp_path / 'tailrace.yaml')], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the interface for programs -------------------------------------------------------------------

def reads():
    """What docs/api.md lists as to be read, each spelling of it."""
    text = (TOP / 'docs/api.md').read_text()
    table = re.search(r'^## Reading\n(.*?)^#', text, re.M | re.S).group(1)
    found = []
    for cell in re.findall(r'^\| (`.*?) \|', table, re.M):
        found += re.findall(r'`([a-z][^`]*)`', cell)
    return found


@pytest.mark.parametrize('path', reads())
def test_what_the_interface_lists_is_there(path, shared):
    path = re.sub(r'(\w+)=(?=&|$)', '', path).rstrip('&?').replace('HOST:PORT', 'github.com:443').replace('ADDRESS', '10.1.2.3')
    if 'ID' in path:
        path = path.replace('ID', str(shared.dead_letter()))
    path = path.replace('TEXT', 'invalid').replace('NAME', 'build').replace('=A&', '=acct&').replace('=N', '=5').replace('=K', f'={quote(BUILD_STREAM, safe="")}')
    path = re.sub(r'[?&]+(?=&)', lambda m: m.group(0)[0], path)
    socket = shared.root / 'var/lib/tailrace/control.sock'
    done = subprocess.run(['curl', '-sS', '-N', '-m', '2' if path.startswith(('events', 'tail')) else '20', '-w', '\n%{http_code}',
                           '--unix-socket', str(socket), f'http://x/api/v1/{path}'], capture_output=True, text=True, timeout=30)
    said, _, code = done.stdout.rpartition('\n')
    assert code == '200', (path, done.stdout, done.stderr)
    if not path.startswith(('events', 'tail')):
        json.loads(said)


def test_what_is_there_is_listed(shared):
    """Each command of the index, by the control socket and by the listener, stands in docs/api.md."""
    text = (TOP / 'docs/api.md').read_text()
    commands = set()
    for place in ('--unix-socket /var/lib/tailrace/control.sock http://x', 'http://127.0.0.1:9464'):
        index = json.loads(shared.run(f'curl -s {place}/api/v1/').stdout)
        commands |= {re.sub(r'/\*', '/ID', c['path']) for c in index}
    missing = [c for c in commands if not re.search(rf'`{re.escape(c)}[`?,]', text)]
    assert len(commands) > 20 and not missing


def test_fields_of_status_are_those_documented(shared):
    text = (TOP / 'docs/api.md').read_text()
    table = re.search(r'^### status\n(.*?)^### ', text, re.M | re.S).group(1)
    listed = {name for cell in re.findall(r'^\| (`.*?) \|', table, re.M) for name in re.findall(r'`(\w+)`', cell)}
    done = shared.run('curl -s http://127.0.0.1:9464/api/v1/status')
    assert set(json.loads(done.stdout)) == listed


# --- the manual pages -----------------------------------------------------------------------------

@pytest.mark.parametrize('name', PAGES)
def test_the_page_is_sound(name, tmp_path):
    """No word of mandoc or groff against it, and what it refers to is there."""
    for other in PAGES:
        section = tmp_path / f'man{other[-1]}'
        section.mkdir(exist_ok=True)
        shutil.copy(page(other), section / other)
    env = dict(os.environ, MANPATH=f'{tmp_path}:', LC_ALL='C.UTF-8')
    linted = subprocess.run(['mandoc', '-Tlint', '-Wstyle', str(page(name))], capture_output=True, text=True, env=env, timeout=30)
    ours = [line for line in (linted.stdout + linted.stderr).splitlines()
            if not re.search(r'outdated mandoc.db|referenced manual not found: Xr (tailrace|systemd)', line)]
    assert not ours
    shown = subprocess.run(['man', '--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z', str(page(name))], capture_output=True,
                           text=True, env=env, timeout=30)
    assert shown.returncode == 0 and not shown.stderr, shown.stderr
    for referred in re.findall(r'^\.Xr (tailrace\S*) (\d)', page(name).read_text(), re.M):
        assert '.'.join(referred) in PAGES


def settings():
    """{path: default or None} of all settings, as the rows have them."""
    source = (TOP / 'src/app/options.c').read_text()
    found = {}
    for path, rest in re.findall(r'(?:ROW|LISTEN|RULE)\(\s*\w+, \w+, "([\w.-]+)"(.*?)\),\n', source, re.S):
        default = re.search(r'\.deflt = "([^"]*)"', rest)
        found[path] = default and default.group(1)
    assert len(found) > 60
    return found


def test_the_annotated_configuration_has_every_setting_and_its_default():
    text = (TOP / 'conf/tailrace.yaml').read_text()
    for path, default in settings().items():
        values = re.findall(rf'\b{re.escape(path.split(".")[-1])}:\s*"?([^\s,"}}]*)', text)
        assert values and (default is None or default in values), (path, default, values)


def test_every_setting_has_default_unit_and_what_a_change_takes():
    text = page('tailrace.yaml.5').read_text().replace('\\-', '-')
    entries = dict(re.findall(r'^\.It Ic (\S+)\n(.*?)(?=^\.It |^\.El)', text, re.M | re.S))
    names = {path: path for path in entries} | {path.split('.NAME.')[-1]: path for path in entries}
    for setting in settings():
        entry = entries[names[setting]]
        assert re.search(r'Default: |Must be given\.', entry), setting
        assert re.search(r'A reload changes it\.|A change takes a restart\.', entry), setting
        assert not re.search(r'A whole number[.,](?!.*\()', entry), f'{setting} has no unit'


HELPS = [('tailrace', 'tailrace.8'), ('tailrace spool', 'tailrace.8'), ('tailrace doctor', 'tailrace.8'), ('tailracectl', 'tailracectl.8')]


@pytest.mark.parametrize('program, name', HELPS)
def test_every_option_and_command_is_in_the_manual(program, name, shared):
    said = shared.run(f'{program} --help').stdout
    text = page(name).read_text().replace('\\-', '-')
    for option in set(re.findall(r'--([a-z][a-z-]+)', said)):
        assert re.search(rf'Fl -{option}\b', text), option
    for command in set(re.findall(r'^(?:usage:|      ) tailrace (\w+)', said, re.M)) - {'help'}:
        assert re.search(rf'^\.It Cm {command}\b', text, re.M) and re.search(rf'^\.Cm {command}\b', text, re.M), command
