"""A process that has loaded the stand-in and forks one whenever it is asked: hundreds of tests want one of their own, and
loading the modules costs more than most of those tests do.

`Nursery().start(argv)` gives what subprocess.Popen would, as far as harness.Harness uses it. It ends with its parent."""
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Child:
    """A stand-in that the nursery forked: not a child of ours, so it is known by a pidfd."""

    def __init__(self, pidfd, stdin, stdout):
        self.pidfd, self.stdin, self.stdout = pidfd, os.fdopen(stdin, 'wb', 0), os.fdopen(stdout, 'rb')

    def wait(self, timeout=None):
        if self.pidfd is None:
            return
        if not select.select([self.pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired('the stand-in', timeout)
        os.close(self.pidfd)
        self.pidfd = None

    def _send(self, signo):
        if self.pidfd is not None:
            try:
                signal.pidfd_send_signal(self.pidfd, signo)
            except ProcessLookupError:
                pass

    def terminate(self):
        self._send(signal.SIGTERM)

    def kill(self):
        self._send(signal.SIGKILL)


class Nursery:
    def __init__(self):
        self.lock, self.process = threading.Lock(), None

    def _open(self):
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([sys.executable, '-m', 'standin.nursery', str(theirs.fileno())],
                                        env=dict(os.environ, PYTHONPATH=TESTS), pass_fds=[theirs.fileno()],
                                        stdin=subprocess.DEVNULL)
        theirs.close()

    def start(self, argv):
        with self.lock:
            if self.process is None:
                self._open()
            stdin, stdout = os.pipe(), os.pipe()
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            socket.send_fds(self.ours, [json.dumps([argv, files]).encode()], [stdin[0], stdout[1], 2])
            os.close(stdin[0])
            os.close(stdout[1])
            fds = socket.recv_fds(self.ours, 1, 1)[1]
        if not fds:
            raise RuntimeError('the nursery has ended')
        return Child(fds[0], stdin[1], stdout[0])

    def close(self):
        if self.process is not None:
            self.ours.close()
            self.process.wait(10)
            self.process = None


def grow_up(asked, fds, argv, files):
    """The new process: a stand-in with the descriptors that came with the request, and room for as many as who asked."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    asked.close()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdout = os.fdopen(1, 'w', closefd=False)
    sys.stderr = os.fdopen(2, 'w', closefd=False)
    from standin.harness import main
    main(argv)
    sys.stdout.flush()


def serve(asked):
    while True:
        text, fds = socket.recv_fds(asked, 1 << 20, 3)[:2]
        if not text:
            return
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                grow_up(asked, fds, *json.loads(text))
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        pidfd = os.pidfd_open(pid)      # nobody has waited for it yet
        socket.send_fds(asked, [b'.'], [pidfd])
        for fd in fds + [pidfd]:
            os.close(fd)
        while True:                     # what has ended since the last request
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


if __name__ == '__main__':
    import standin.harness              # noqa: F401
    import standin.web1                 # noqa: F401
    import standin.web2                 # noqa: F401
    import zstandard                    # noqa: F401
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
