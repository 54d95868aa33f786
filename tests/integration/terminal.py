"""A terminal for programs that draw: a pty whose screen can be read, as far as tailracectl draws."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
import unicodedata

from gateway import SLOW

CODE = re.compile(r'\x1b\[(\??)([0-9;]*)([A-Za-z])')


def columns_of(char):
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in 'WF' else 1


class Terminal:
    """Runs `argv`. `screen` are the lines that stand on it; `alternate` and `cursor` are how they were left."""

    def __init__(self, argv, lines=24, columns=80, env=None):
        self.lines, self.columns = lines, columns
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))
            os.execve(argv[0], list(map(str, argv)), {**os.environ, 'TERM': 'xterm', **(env or {})})
        self.raw, self.text, self.status = b'', '', None
        self.alternate, self.cursor, self.wrap, self.painted, self.too_wide = False, True, True, False, []
        self.screen, self.row, self.column = [[]], 0, 0
        self.echo = termios.tcgetattr(self.fd)[3] & termios.ECHO

    def resize(self, lines, columns):
        self.lines, self.columns = lines, columns
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def signal(self, signo):
        os.kill(self.pid, signo)

    def has_echo(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def read(self, timeout=0.1):
        if not select.select([self.fd], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b''
        self.raw += data
        self.take(data.decode('utf-8', 'replace'))
        return bool(data)

    def wait(self, condition, timeout=10, what='the screen'):
        """Read until the condition holds of this terminal."""
        end = time.monotonic() + timeout * SLOW
        while not condition(self):
            assert time.monotonic() < end, f'{what} did not come:\n{self.shown()}'
            if not self.read():
                assert condition(self), f'{what} did not come before the end:\n{self.shown()}'
        return self

    def shown(self):
        return '\n'.join(''.join(line).rstrip() for line in self.screen)

    def end(self, timeout=10):
        """Its exit status, or minus its signal."""
        stop = time.monotonic() + timeout * SLOW
        while self.read() and time.monotonic() < stop:
            pass
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > stop:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError('it did not end:\n' + self.shown())
            else:
                select.select([], [], [], 0.01)
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # --- what it is told ---------------------------------------------------------------------

    def take(self, text):
        text, self.text = self.text + text, ''
        at = 0
        while at < len(text):
            if text[at] == '\x1b':
                code = CODE.match(text, at)
                if not code:
                    assert len(text) - at < 16, repr(text[at:at + 16])
                    self.text = text[at:]
                    return
                self.obey(*code.groups())
                at = code.end()
            else:
                self.put(text[at])
                at += 1

    def obey(self, private, numbers, letter):
        if private:
            on = letter == 'h'
            assert letter in 'hl' and numbers in ('1049', '25', '7'), (numbers, letter)
            if numbers == '1049':
                self.alternate = on
            elif numbers == '25':
                self.cursor = on
            else:
                self.wrap = on
        elif letter == 'H':
            self.row = self.column = 0
        elif letter == 'K':
            self.line()[self.column:] = []
        elif letter == 'J':
            self.line()[self.column:] = []
            del self.screen[self.row + 1:]
        else:
            assert letter == 'm', (numbers, letter)
            self.painted = True

    def line(self):
        while len(self.screen) <= self.row:
            self.screen.append([])
        return self.screen[self.row]

    def put(self, char):
        if char == '\r':
            self.column = 0
        elif char == '\n':
            self.row += 1
            if self.row >= self.lines:
                self.screen.pop(0)
                self.row -= 1
            self.line()
        else:
            assert char.isprintable(), repr(char)
            width, line = columns_of(char), self.line()
            line[len(line):] = [' '] * (self.column - len(line))
            line[self.column:self.column + width] = [char] + [''] * (width - 1) if width else line[self.column:self.column]
            self.column += width
            if self.column > self.columns:
                self.too_wide.append(''.join(line))
