"""The memory of a process, as a dump would show it: for root, or where ptrace is allowed."""
import re


def regions(pid):
    """(start, end) of what it has written to: heap, stacks, anonymous mappings."""
    with open(f'/proc/{pid}/maps') as maps:
        for line in maps:
            found = re.match(r'([0-9a-f]+)-([0-9a-f]+) rw.. \S+ \S+ \d+\s*(.*)', line)
            if found and not found.group(3).startswith(('[vvar', '/dev')):
                yield int(found.group(1), 16), int(found.group(2), 16)


def find(pid, word, around=48):
    """Where `word` stands: what is around each place."""
    places = []
    with open(f'/proc/{pid}/mem', 'rb', 0) as mem:
        for start, end in regions(pid):
            try:
                mem.seek(start)
                data = mem.read(end - start)
            except OSError:
                continue
            at = data.find(word)
            while at >= 0:
                places.append(bytes(data[max(0, at - around):at + len(word) + around]))
                at = data.find(word, at + 1)
    return places
