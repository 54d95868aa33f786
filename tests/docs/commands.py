"""Finds the commands in the documentation.

A command is each line of a block that is indented by four, or fenced with ```sh (```console: behind `$ `); inline code that
begins with one of PROGRAMS and has an argument; and in manual pages `.Dl` and `.Ql` of the same kind. Blocks of other languages
are no commands; their language says what they are."""
import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

# Inline code that begins with one of these and goes on is a command.
PROGRAMS = ('tailrace', 'tailracectl', 'make', 'systemctl', 'journalctl', 'kubectl', 'helm', 'curl', 'kill', 'openssl',
            'dpkg-buildpackage', 'apt', 'dpkg', 'sqlite3', 'promtool', 'rpmbuild', 'docker', 'df', 'dmesg', 'iostat', 'smartctl',
            'grep', 'cat', 'ss', 'htpasswd', 'mkpasswd', 'contrib/demo.sh', 'tests/run.sh', 'tests/deps.sh', 'git', 'cp', 'man',
            'pytest', 'python3', 'ssh', 'nsenter', 'ip', 'nft', 'chmod', 'chown', 'systemd-analyze', 'useradd', 'setpriv', 'sed',
            'tests/bench/instructions.py', 'contrib/container/make-root.sh')
COMMAND_LANGUAGES = ('sh', 'console', '')
OTHER_LANGUAGES = ('yaml', 'json', 'python', 'text', 'ini', 'promql', 'sql')


class Command:
    def __init__(self, where, line, text):
        self.where, self.line, self.text = where, line, text

    def __repr__(self):
        return f'{self.where}:{self.line}: {self.text}'


def documents():
    found = ['README.md', *sorted(str(p.relative_to(TOP)) for p in TOP.glob('docs/*.md')), 'debian/README.Debian',
             'tests/standin/README.md']
    for pattern in ('conf/**/README*', 'contrib/**/README*'):
        found += sorted(str(p.relative_to(TOP)) for p in TOP.glob(pattern))
    return found


def without_comment(text):
    return re.sub(r'\s+#\s.*$', '', text).strip()


def is_inline_command(text):
    words = text.split()
    return len(words) > 1 and words[0] in PROGRAMS


def of_markdown(where, text):
    """Commands of one document; ValueError if a block cannot be classed."""
    found, fence, before_blank, table = [], None, True, False
    pending = None      # a command that goes on in the next line
    for number, line in enumerate(text.splitlines(), 1):
        opened = re.match(r'\s*```(\S*)', line)
        if opened:
            fence = opened.group(1) if fence is None else None
            if fence is not None and fence not in COMMAND_LANGUAGES + OTHER_LANGUAGES:
                raise ValueError(f'{where}:{number}: a block of "{fence}": use sh for commands, text for anything else')
            continue
        indented = fence is None and before_blank and line.startswith('    ')
        block = fence in COMMAND_LANGUAGES if fence is not None else indented
        if block and line.strip():
            part = line.strip()
            if fence == 'console' and part.startswith('sqlite> '):
                part = '%s "%s"' % (found[-1].text.split(' "')[0], re.sub(r'\s+--\s.*$', '', part[8:]).replace('"', '\\"'))
            elif fence == 'console':
                part = part[2:] if part.startswith('$ ') else ''
            part = without_comment(part)
            if pending:
                pending.text += ' ' + part.rstrip('\\').strip()
            elif part and not part.startswith('#'):
                pending = Command(where, number, part.rstrip('\\').strip())
                found.append(pending)
            if not part.endswith('\\'):
                pending = None
        elif fence is None and not indented:
            for code in re.findall(r'`([^`]+)`', line):
                if is_inline_command(code):
                    found.append(Command(where, number, code))
        if not indented:
            before_blank = not line.strip()
    return found


def of_manual(where, text):
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        said = re.match(r'\.(Dl|Ql) (.*?)( [.,;:])?$', line)
        words = [said.group(2)] if said else re.findall(r'\\fB(.*?)\\fR', line)
        for word in words:
            word = word.replace('\\-', '-').replace('\\e', '\\').strip('"')
            if is_inline_command(word):
                found.append(Command(where, number, word))
    return found


def all_commands(pages=()):
    found = []
    for name in documents():
        found += of_markdown(name, (TOP / name).read_text())
    for page in pages:
        found += of_manual(page.name, page.read_text())
    return found
