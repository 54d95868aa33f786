"""Runs a program as the system's service would: `under_filter.py UNIT [--user NAME] PROGRAM ARGUMENT...`

What the unit says of system calls (SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies) is loaded with libseccomp,
but for one thing: what is not allowed is death, not an error, so that nothing of it goes unnoticed."""
import ctypes
import os
import pwd
import re
import socket
import subprocess
import sys

ALLOW, KILL = 0x7fff0000, 0x80000000
NOT_EQUAL, MASKED_EQUAL, EQUAL = 1, 7, 4
PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = 46


def settings(unit):
    """{name: [value]} of a unit; the last assignment is the last in its list."""
    found = {}
    with open(unit, encoding='utf-8') as f:
        for name, value in re.findall(r'^(\w+)=(.*)$', f.read(), re.M):
            found.setdefault(name, []).append(value.strip())
    return found


def expand(name):
    """The calls of a set, and of the sets in it."""
    if not name.startswith('@'):
        return {name}
    out = subprocess.run(['systemd-analyze', 'syscall-filter', name], capture_output=True, text=True, check=True).stdout
    calls = set()
    for line in out.splitlines()[1:]:
        item = line.strip()
        if item and not item.startswith('#'):
            calls |= expand(item)
    return calls


def allowed(unit):
    calls = set()
    for value in settings(unit)['SystemCallFilter']:
        names = set().union(*(expand(name) for name in value.lstrip('~').split()))
        calls = calls - names if value.startswith('~') else calls | names
    return calls


class Compare(ctypes.Structure):
    _fields_ = [('arg', ctypes.c_uint), ('op', ctypes.c_int), ('a', ctypes.c_uint64), ('b', ctypes.c_uint64)]


class Filter:
    def __init__(self, default):
        self.lib = ctypes.CDLL('libseccomp.so.2', use_errno=True)
        self.lib.seccomp_init.restype = ctypes.c_void_p
        self.lib.seccomp_init.argtypes = [ctypes.c_uint32]
        self.lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
                                                    ctypes.POINTER(Compare)]
        self.lib.seccomp_load.argtypes = [ctypes.c_void_p]
        self.ctx = self.lib.seccomp_init(default)

    def rule(self, action, call, *compare):
        number = self.lib.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return                                      # of another architecture, or newer than the library
        args = (Compare * max(len(compare), 1))(*compare)
        if self.lib.seccomp_rule_add_array(self.ctx, action, number, len(compare), args):
            raise OSError(f'no rule for {call}')

    def load(self):
        if self.lib.seccomp_load(self.ctx):
            raise OSError('the filter cannot be loaded')


def restrict(unit):
    said = settings(unit)
    others = Filter(ALLOW)
    if said.get('MemoryDenyWriteExecute') == ['yes']:
        both = PROT_WRITE | PROT_EXEC
        others.rule(KILL, 'mmap', Compare(2, MASKED_EQUAL, both, both))
        others.rule(KILL, 'mprotect', Compare(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
        others.rule(KILL, 'pkey_mprotect', Compare(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    families = {getattr(socket, name) for value in said['RestrictAddressFamilies'] for name in value.split()}
    for family in range(FAMILIES):
        if family not in families:
            others.rule(KILL, 'socket', Compare(0, EQUAL, family, 0))
    calls = Filter(KILL)
    for name in sorted(allowed(unit)):
        calls.rule(ALLOW, name)
    others.load()
    calls.load()


def main():
    unit, *rest = sys.argv[1:]
    if rest[0] == '--user':
        who = pwd.getpwnam(rest[1])
        os.setgroups([])
        os.setresgid(who.pw_gid, who.pw_gid, who.pw_gid)
        os.setresuid(who.pw_uid, who.pw_uid, who.pw_uid)
        rest = rest[2:]
    restrict(unit)
    os.execv(rest[0], rest)


if __name__ == '__main__':
    main()
