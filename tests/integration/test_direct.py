"""While the spool cannot commit but upstream answers, calls are passed on as they are (architecture, invariant 10)."""
import subprocess

import pytest
from calls import Api
from gateway import BINARY, key, wait_for

needs_fault_points = pytest.mark.skipif(
    b'fault points' not in subprocess.run([BINARY, 'version'], capture_output=True).stdout,
    reason='this binary has no fault points')


class Disk:
    """A spool that cannot commit while `broken` is there."""

    def __init__(self, path):
        self.path = path
        self.env = {'TAILRACE_FAULT': 'spool-commit:1:while', 'TAILRACE_FAULT_WHILE': str(path)}

    def fail(self):
        self.path.touch()

    def mend(self):
        self.path.unlink()


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path / 'broken')


@pytest.fixture
def gw(far, gateway_at, disk):
    return gateway_at(far.url, env=disk.env)


def record(far, name=None):
    return far.state()['records'].get('acct/' + (name or key()), {'opens': 0, 'wipes': 0, 'closes': 0})


def requests(far, call):
    return sum(far.counts()['requests'].get(call, {}).values())


def opened(gw, far, name=None):
    """A stream that upstream has, and of which nothing waits."""
    api = Api(gw.log_url)
    assert api.open(name or key())[0] == 204
    wait_for(lambda: record(far, name)['opens'] == 1)
    gw.wait_delivered()
    return api


def wait_accounted(gw, lines):
    """What went directly is in the ledger, which balances in every sample until then."""
    wait_for(lambda: gw.ledger()['delivered'] == lines)
    assert gw.ledger() == {**gw.ledger(), 'accepted': lines, 'spooled': 0}


@needs_fault_points
def test_calls_go_directly_while_the_spool_fails(far, gw, disk):
    api = opened(gw, far)
    disk.fail()
    for i in range(5):
        assert api.put(key(), f'line {i}\n', start=i)[0] == 204
    assert api.blob(key('b'), b'{"out":"x"}\n')[0] == 204
    assert api.delete(key())[0] == 204
    assert far.lines('acct', key()) == [f'line {i}\n' for i in range(5)]
    assert far.blob('acct', key('b')) == b'{"out":"x"}\n'
    assert record(far)['opens'] == 1 and record(far)['closes'] == 1
    assert gw.metric('direct_calls_total') == 7
    wait_for(lambda: gw.get('/readyz')[0] == 503)
    assert 'cannot make records durable' in gw.log()


@needs_fault_points
def test_what_went_directly_is_accounted_once_the_spool_works(far, gw, disk):
    api = opened(gw, far)
    assert api.put(key(), 'spooled\n')[0] == 204
    gw.wait_delivered()
    disk.fail()
    for i in range(4):
        assert api.put(key(), f'{i}\n', start=i + 1)[0] == 204
    assert api.blob(key('b'), b'{"out":"x"}\n')[0] == 204
    assert gw.ledger()['accepted'] == 1
    disk.mend()
    wait_accounted(gw, 5)
    assert gw.ledger('blobs')['delivered'] == 1
    assert api.put(key(), 'again\n', start=5)[0] == 204
    wait_accounted(gw, 6)
    assert far.lines('acct', key()) == ['spooled\n', '0\n', '1\n', '2\n', '3\n', 'again\n']
    assert gw.metric('lines_resent_total') == 0


@needs_fault_points
def test_a_crash_before_that_leaves_a_ledger_that_balances(far, gw, disk):
    api = opened(gw, far)
    disk.fail()
    assert api.put(key(), 'x\n')[0] == 204
    gw.kill()
    disk.mend()
    gw.start()
    assert gw.ledger()['accepted'] == 0 and far.lines('acct', key()) == ['x\n']
    api.close()
    assert api.put(key(), 'y\n', start=1)[0] == 204
    wait_accounted(gw, 1)
    assert far.lines('acct', key()) == ['x\n', 'y\n'] and record(far)['opens'] == 1


@needs_fault_points
@pytest.mark.parametrize('taken', [True, False])
def test_an_open_of_unknown_outcome_is_followed_by_no_other(far, gw, disk, taken):
    """Whether it took effect or not: its lines tell, when the spool works at the latest."""
    disk.fail()
    far.fault('execute_lost' if taken else 'close', 'open', count=1)
    api = Api(gw.log_url)
    assert api.open(key())[0] == 503
    assert requests(far, 'open') == 1
    for _ in range(3):
        assert api.open(key())[0] == 503
    assert requests(far, 'open') == 1
    if taken:
        assert api.put(key(), 'a\n')[0] == 204
        assert api.open(key())[0] == 204                 # it is there: joined
    else:
        assert api.put(key(), 'a\n')[0] == 503
    disk.mend()
    wait_for(lambda: api.open(key())[0] == 204)
    assert api.put(key(), *([] if taken else ['a\n']), 'b\n', start=1 if taken else 0)[0] == 204
    assert api.delete(key())[0] == 204
    wait_accounted(gw, 2)
    wait_for(lambda: record(far)['closes'] == 1)
    assert record(far)['opens'] == 1 and record(far)['wipes'] == 0
    assert requests(far, 'open') == (1 if taken else 2)


@needs_fault_points
def test_a_second_open_joins_what_went_directly(far, gw, disk):
    disk.fail()
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    assert api.put(key(), 'a\n')[0] == 204
    assert Api(gw.log_url).open(key())[0] == 204
    disk.mend()
    wait_for(lambda: Api(gw.log_url).open(key())[0] == 204)
    assert api.put(key(), 'b\n', start=1)[0] == 204
    wait_accounted(gw, 2)
    assert far.lines('acct', key()) == ['a\n', 'b\n']
    assert record(far)['opens'] == 1 and record(far)['wipes'] == 0


@needs_fault_points
@pytest.mark.parametrize('mended', [False, True])
def test_lines_whose_answer_was_lost_are_counted_when_they_come_again(far, gw, disk, mended):
    api = opened(gw, far)
    disk.fail()
    far.fault('execute_lost', 'lines', count=1)
    assert api.put(key(), 'a\n', 'b\n')[0] == 503
    if mended:
        disk.mend()
    wait_for(lambda: api.put(key(), 'a\n', 'b\n')[0] == 204)
    assert api.put(key(), 'c\n', start=2)[0] == 204
    if not mended:
        disk.mend()
    wait_accounted(gw, 3)
    assert far.lines('acct', key()) == ['a\n', 'b\n', 'a\n', 'b\n', 'c\n']
    wait_for(lambda: gw.metric('lines_resent_total') == 2)


@needs_fault_points
def test_a_repeated_body_is_not_sent_again(far, gw, disk):
    api = opened(gw, far)
    assert api.put(key(), 'a\n')[0] == 204
    gw.wait_delivered()
    disk.fail()
    assert api.put(key(), 'a\n')[0] == 204              # from before
    for _ in range(2):
        assert api.put(key(), 'b\n', start=1)[0] == 204
    disk.mend()
    wait_for(lambda: gw.get('/readyz')[0] == 200)
    assert api.put(key(), 'b\n', start=1)[0] == 204
    wait_accounted(gw, 2)
    assert far.lines('acct', key()) == ['a\n', 'b\n']


@needs_fault_points
def test_a_broken_upload_replaces_nothing(far, gw, disk):
    api = opened(gw, far)
    whole = b'{"out":"a"}\n{"out":"b"}\n'
    disk.fail()
    assert api.put(key(), 'a\n')[0] == 204
    assert api.blob(key(), whole)[0] == 204
    assert api.blob(key(), whole[5:])[0] == 503
    assert api.blob(key(), b'')[0] == 503
    assert far.blob('acct', key()) == whole
    assert api.delete(key())[0] == 204 and api.delete(key())[0] == 204
    assert api.put(key(), 'late\n', start=1)[0] == 503
    disk.mend()
    wait_accounted(gw, 1)
    assert record(far)['closes'] == 1 and requests(far, 'close') == 1


@needs_fault_points
def test_a_close_of_many_streams_does_not_go_past_their_lines(far, gw, disk):
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    gw.wait_delivered()
    disk.fail()
    assert api.delete(key()[:-3], more='&prefix=true')[0] == 503
    assert requests(far, 'close') == 0


@needs_fault_points
def test_refused_when_neither_spool_nor_upstream_can_take_it(far, gateway_at):
    gw = gateway_at(far.url, env={'TAILRACE_FAULT': 'spool-commit:5:fail'})
    far.stop()
    api = Api(gw.log_url)
    answers = [api.put(key(), f'{i}\n', start=i) for i in range(10)]
    assert answers[-1][0] == 503 and 'spool' in answers[-1][1]
    accepted = sum(a[0] == 204 for a in answers)
    assert 0 < accepted < 10
    assert gw.ledger()['spooled'] == accepted
