"""What shells complete tailracectl's commands with: as they would, with the words of the table and of a gateway."""
import os
import re
import shutil
import subprocess

import pytest

from standin_gateway import CTL, KEY, StandinGateway, stream, streams

NASTY = "k$(touch {})`touch {}`;'\"\\ &|<>*?[x]~"


@pytest.fixture
def far(tmp_path):
    with StandinGateway(tmp_path) as g:
        yield g


@pytest.fixture(scope='module')
def scripts(tmp_path_factory):
    """Directory of the three, as they are installed."""
    directory = tmp_path_factory.mktemp('completion')
    for shell in ('bash', 'zsh', 'fish'):
        text = subprocess.run([CTL, 'completion', shell], capture_output=True, text=True, check=True).stdout
        (directory / shell).write_text(text)
    return directory


BASH = r'''
. "$1"
complete -p tailracectl >/dev/null || exit 9
line=$2
COMP_LINE=$line COMP_POINT=${#line}
# As bash breaks words: at blanks, and at what is in COMP_WORDBREAKS, which are words of their own.
COMP_WORDS=("$3")
COMP_CWORD=1
_tailracectl
for word in "${COMPREPLY[@]}"; do printf '%s\n' "$word"; done
'''


def bash(scripts, line, cwd=None):
    done = subprocess.run(['bash', '--norc', '-c', BASH, 'bash', str(scripts / 'bash'), line, CTL], capture_output=True,
                          text=True, timeout=20, check=True, cwd=cwd)
    assert done.stderr == ''
    return done.stdout.splitlines()


@pytest.mark.parametrize('line, has, has_not', [
    ('tailracectl ', ['status', 'dead', 'top', 'policy'], ['dead list', 'explain', '--json']),
    ('tailracectl st', ['status', 'streams', 'stream'], ['top']),
    ('tailracectl --json st', ['status'], ['top']),
    ('tailracectl -c x st', ['status'], ['top']),
    ('tailracectl dead ', ['list', 'explain', 'export', 'replay', 'drop'], ['status']),
    ('tailracectl policy e', ['explain'], []),
    ('tailracectl streams --s', ['--search', '--sort', '--state', '--socket'], ['--by', '--yes']),
    ('tailracectl dead drop --', ['--yes', '--all', '--reason', '--json'], ['--check']),
    ('tailracectl status -', ['--check', '--config', '--help'], ['--yes']),
    ('tailracectl streams --state ', ['waiting', 'open', 'held', 'dead', 'all'], ['status']),
    ('tailracectl streams --state=h', ['held'], ['open']),
    ('tailracectl tunnels --by d', ['destination'], ['client']),
    ('tailracectl log-level ', ['debug', 'warn'], ['status']),
    ('tailracectl completion z', ['zsh'], ['bash']),
    ('tailracectl help d', ['dead', 'denials', 'drain'], ['list']),
    ('tailracectl help dead ', ['list'], ['dead']),
    ('tailracectl status x', [], ['status']),
    ('tailracectl streams --search ', [], ['status', 'a']),
])
def test_bash(scripts, line, has, has_not):
    found = bash(scripts, line)
    assert set(has) <= set(found) and not set(has_not) & set(found), found


def test_bash_completes_files(scripts, tmp_path):
    (tmp_path / 'one file.yaml').touch()
    for line in ('tailracectl -c one', 'tailracectl --config one', 'tailracectl dead export 1 -o o'):
        assert bash(scripts, line, cwd=tmp_path) == ['one file.yaml']


def test_bash_completes_streams_and_letters(far, scripts):
    far.answers.update(streams=streams(stream('build'), stream('test')),
                       dead={'letters': [{'id': 7}, {'id': 71}, {'id': 8}], 'next': 0})
    to = f'tailracectl --socket {far.socket} '
    # Bash keeps what stands before the last colon, and puts the word in place of what follows.
    assert bash(scripts, to + 'tail ' + KEY[:40]) == [after_colon(KEY + n, KEY[:40]) for n in ('build', 'test')]
    assert bash(scripts, to + 'stream ' + KEY + 'b') == ['build']
    assert bash(scripts, to + 'stream lev') == []          # more than one holds it
    assert bash(scripts, to + 'dead explain 7') == ['7', '71'] and bash(scripts, to + 'dead replay 7 8') == ['8']
    assert far.asked[0] == ('GET', 'streams', {'state': 'all', 'search': KEY[:40], 'limit': '1000'})
    far.stop()
    assert bash(scripts, to + 'tail ' + KEY) == []


def after_colon(word, current):
    return word[current.rfind(':') + 1:]


def test_what_clients_named_is_never_evaluated(far, scripts, tmp_path):
    mark = tmp_path / 'touched'
    nasty = NASTY.format(mark, mark)
    far.answers['streams'] = streams(stream(key=nasty), stream(key='k\x1b[2J'), stream(key='k\u202eb'), stream(key='k\nc'))
    found = bash(scripts, f'tailracectl --socket {far.socket} tail k', cwd=tmp_path)
    assert len(found) == 1
    # What is put on the line is that name and nothing else when it is read.
    again = subprocess.run(['bash', '--norc', '-c', f'printf %s {found[0]}'], capture_output=True, text=True, cwd=tmp_path,
                           check=True).stdout
    assert again == nasty and not mark.exists()


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_the_scripts_can_be_read(scripts, shell):
    if not shutil.which(shell):
        pytest.skip(f'there is no {shell} here')
    done = subprocess.run([shell, '-n', str(scripts / shell)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ''


def fish(scripts, line):
    done = subprocess.run(['fish', '--no-config', '-c', 'source $argv[1]; complete -C $argv[2]', str(scripts / 'fish'), line],
                          capture_output=True, text=True, check=True, timeout=20,
                          env={**os.environ, 'PATH': os.path.dirname(CTL) + ':' + os.environ['PATH']})
    assert done.stderr == ''
    return [entry.split('\t')[0] for entry in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which('fish'), reason='there is no fish here')
def test_fish(far, scripts):
    far.answers.update(streams=streams(stream('build')), dead={'letters': [{'id': 7}], 'next': 0})
    assert {'status', 'dead', 'top'} <= set(fish(scripts, 'tailracectl '))
    assert 'list' not in fish(scripts, 'tailracectl ')
    assert set(fish(scripts, 'tailracectl dead ')) == {'list', 'explain', 'export', 'replay', 'drop'}
    assert {'--state', '--sort', '--json'} <= set(fish(scripts, 'tailracectl streams --'))
    assert '--yes' not in fish(scripts, 'tailracectl streams --')
    assert 'held' in fish(scripts, 'tailracectl streams --state ')
    assert fish(scripts, f'tailracectl --socket {far.socket} tail acc') == [KEY + 'build']
    assert fish(scripts, f'tailracectl --socket {far.socket} dead explain ') == ['7']


ZSH = r'''
compdef() { }
compadd() { if [[ $1 == -a ]]; then print -rl -- "${(@P)2}"; else shift; print -rl -- "$@"; fi }
_describe() { print -rl -- "${(@)${(@P)4}%%:*}" }
_files() { print files }
. "$1"
words=("${(@Q)${(z)2}}")
[[ $2 == *' ' ]] && words+=('')
CURRENT=${#words} PREFIX=${words[-1]}
_tailracectl
'''


@pytest.mark.skipif(not shutil.which('zsh'), reason='there is no zsh here')
def test_zsh(far, scripts):
    far.answers.update(streams=streams(stream('build')), dead={'letters': [{'id': 7}], 'next': 0})

    def zsh(line):
        done = subprocess.run(['zsh', '-f', '-c', ZSH, 'zsh', str(scripts / 'zsh'), line], capture_output=True, text=True,
                              check=True, timeout=20, env={**os.environ, 'PATH': os.path.dirname(CTL) + ':' + os.environ['PATH']})
        assert done.stderr == ''
        return done.stdout.split('\n')[:-1]

    assert {'status', 'dead', 'top'} <= set(zsh('tailracectl ')) and 'list' not in zsh('tailracectl ')
    assert set(zsh('tailracectl dead ')) == {'list', 'explain', 'export', 'replay', 'drop'}
    assert {'--state', '--sort', '--json'} <= set(zsh('tailracectl streams --')) and '--yes' not in zsh('tailracectl streams --')
    assert 'held' in zsh('tailracectl streams --state ') and zsh('tailracectl -c ') == ['files']
    assert zsh(f'tailracectl --socket {far.socket} tail acc') == [KEY + 'build']
    assert zsh(f'tailracectl --socket {far.socket} dead explain ') == ['7']
    assert 'list' in zsh('tailracectl help dead ')


def test_they_are_installed_where_shells_look():
    """As the build makes them: the same as the program says."""
    directory = os.path.join(os.path.dirname(CTL), 'completion')
    if not os.path.isdir(directory):
        pytest.skip('this is no build tree')
    for name, shell in (('tailracectl', 'bash'), ('_tailracectl', 'zsh'), ('tailracectl.fish', 'fish')):
        said = subprocess.run([CTL, 'completion', shell], capture_output=True, text=True, check=True).stdout
        with open(os.path.join(directory, name), encoding='utf-8') as f:
            assert f.read() == said
        assert re.search(r'made by: tailracectl completion', said)
