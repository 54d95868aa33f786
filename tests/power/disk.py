"""What a disk may hold after the power was cut, from a record of everything that was done to it (recorder.c).

Until a file is synced each of its writes since the last sync may have reached the disk or not, in any order, whole or
torn at 512 bytes. Names follow in their order, but late: those of a directory are certain once it is synced."""
import posixpath
import struct

SECTOR = 512
HEAD = struct.Struct('<I c 3x Q Q Q')
MAGIC = 0x52574f50


class Op:
    __slots__ = ('kind', 'ino', 'at', 'data', 'end')

    def __init__(self, kind, ino, at, data, end):
        self.kind, self.ino, self.at, self.data, self.end = kind, ino, at, data, end


def read_record(path):
    """[Op], each with the size of the record after it."""
    data, at, ops = path.read_bytes(), 0, []
    while at + HEAD.size <= len(data):
        magic, kind, ino, where, size = HEAD.unpack_from(data, at)
        assert magic == MAGIC, 'the record is broken at byte %d' % at
        at += HEAD.size + size
        ops.append(Op(kind.decode(), ino, where, data[at - size:at], at))
    assert at == len(data), 'the record ends in the middle of an entry'
    return ops


class File:
    def __init__(self):
        self.sure, self.open = bytearray(), []      # what is certain; what was done since


class Directory:
    def __init__(self):
        self.sure, self.open = {}, []               # {name: File or Directory}; [(kind, name, what)]

    def entries(self, n):
        """With the first `n` changes that are not certain."""
        found = dict(self.sure)
        for kind, name, what in self.open[:n]:
            if kind == 'U':
                found.pop(name, None)
            else:
                found[name] = what
        return found


def write(content, at, data):
    if at > len(content):
        content.extend(bytes(at - len(content)))
    content[at:at + len(data)] = data


def resize(content, size):
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def torn(content, op, keep):
    """The sectors of a write for which `keep` says so."""
    at = 0
    while at < len(op.data):
        n = min(SECTOR - (op.at + at) % SECTOR, len(op.data) - at)
        if keep():
            write(content, op.at + at, op.data[at:at + n])
        at += n


def perform(content, op):
    if op.kind == 'W':
        write(content, op.at, op.data)
    elif op.kind == 'T':
        resize(content, op.at)
    elif op.at > len(content):
        resize(content, op.at)


class Disk:
    """Changes are given to it one after the other; at any moment it can say what may be left of them.

    `blind`: syncs of files achieve nothing, as on a disk that lies."""

    def __init__(self, blind=False):
        self.blind = blind
        self.root = Directory()
        self.known = {}             # inode: File or Directory
        self.last = None

    def directory(self, name):
        at = self.root
        for part in posixpath.dirname(name).split('/'):
            if part:
                at = at.entries(len(at.open))[part]
        return at

    def apply(self, op):
        kind, what = op.kind, self.known.get(op.ino)
        if kind in 'CM':
            self.known[op.ino] = what = File() if kind == 'C' else Directory()
            self.name(kind, op.data.decode(), what)
        elif kind == 'U':
            self.name(kind, op.data.decode(), None)
        elif kind == 'R':
            old, new = op.data.decode().split('\0')
            where = self.directory(old)
            moved = where.entries(len(where.open))[posixpath.basename(old)]
            self.name('U', old, None)
            self.name('C', new, moved)
        elif kind == 'S':
            self.sync(what)
        elif kind in 'WTG' and what is not None:
            what.open.append(op)
            self.last = op

    def name(self, kind, name, what):
        self.directory(name).open.append((kind, posixpath.basename(name), what))

    def sync(self, what):
        if what is None:            # the root
            what = self.root
        if isinstance(what, Directory):
            what.sure, what.open = what.entries(len(what.open)), []
        elif not self.blind:
            for op in what.open:
                perform(what.sure, op)
            what.open = []

    def image(self, fate):
        """{path: bytes} after a cut now. `fate` decides, see below."""
        found = {}
        self.fill(found, '', self.root, fate)
        return found

    def fill(self, found, prefix, directory, fate):
        for name, what in directory.entries(fate.names(len(directory.open))).items():
            if isinstance(what, Directory):
                self.fill(found, prefix + name + '/', what, fate)
                continue
            content = bytearray(what.sure)
            for op in what.open:
                how = fate.write(op, op is self.last)
                if how == 'keep' or (how == 'tear' and op.kind != 'W'):
                    perform(content, op)
                elif how == 'tear':
                    torn(content, op, fate.sector)
            found[prefix + name] = bytes(content)


class Nothing:
    """Whatever was not synced is gone."""

    def names(self, n):
        return 0

    def write(self, op, last):
        return 'drop'


class Everything:
    """All of it is there: the program was killed, the machine was not."""

    def names(self, n):
        return n

    def write(self, op, last):
        return 'keep'


class LastTorn(Everything):
    """The write under way reached the disk up to some sector."""

    def __init__(self, rng):
        self.left = rng.randrange(0, 9)

    def write(self, op, last):
        return 'tear' if last else 'keep'

    def sector(self):
        self.left -= 1
        return self.left >= 0


class Chance:
    """Each for itself: kept, dropped or torn."""

    def __init__(self, rng):
        self.rng, self.kept = rng, rng.choice((0.1, 0.5, 0.9))

    def names(self, n):
        return self.rng.randint(0, n)

    def write(self, op, last):
        return 'keep' if self.rng.random() < self.kept else self.rng.choice(('drop', 'tear'))

    def sector(self):
        return self.rng.random() < 0.5
