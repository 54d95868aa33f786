"""What is in a spool that no gateway has open, by the program of tests/power/look.c."""
import collections
import os
import subprocess
from pathlib import Path

POWER = Path(os.environ.get('POWER', 'tests/power'))


class Found:
    """What look.c says of one image."""

    def __init__(self, stream):
        self.damage, self.names, self.ledger = [], {}, {}
        self.lines = collections.defaultdict(list)      # stream: [(number, lines, text)]
        self.blobs = collections.defaultdict(set)       # stream: {sha256}
        self.closes = set()
        self.dead = []                                  # [(name, lines, text)]
        for raw in iter(stream.readline, b''):
            word = raw.decode().split()
            if word[0] == 'end':
                return
            self.take(word, stream)
        raise AssertionError('look ended')

    def take(self, word, stream):
        if word[0] == 'stream':
            self.names[int(word[1])] = word[2]
        elif word[0] == 'lines':
            self.lines[int(word[1])].append((int(word[2]), int(word[3]), stream.read(int(word[4]) + 1)))
        elif word[0] == 'blob':
            self.blobs[int(word[1])].add(word[4])
        elif word[0] == 'close':
            self.closes.add(int(word[1]))
        elif word[0] == 'dead':
            self.dead.append((word[1], int(word[2]), stream.read(int(word[3]) + 1)))
        elif word[0] == 'ledger':
            self.ledger[word[1]] = [int(x) for x in word[2:]]
        elif word[0] != 'spool':
            self.damage.append(' '.join(word))


class Looker:
    """The program of look.c, kept running."""

    def __init__(self, limit):
        self.process = subprocess.Popen([str(POWER / 'look'), str(limit)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def look(self, path):
        self.process.stdin.write(b'%s\n' % os.fsencode(path))
        self.process.stdin.flush()
        return Found(self.process.stdout)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0, 'look ended with %s' % self.process.returncode
