"""While the spool cannot commit but upstream answers, calls are passed on as they are (architecture, invariant 10)."""
import subprocess

import pytest
from calls import Api
from gateway import BINARY, key, wait_for

needs_fault_points = pytest.mark.skipif(
    b'fault points' not in subprocess.run([BINARY, 'version'], capture_output=True).stdout,
    reason='this binary has no fault points')


@needs_fault_points
def test_calls_go_directly_while_the_spool_fails(far, gateway_at):
    gw = gateway_at(far.url, env={'TAILRACE_FAULT': 'spool-commit:3:fail'})
    api = Api(gw.log_url)
    assert api.open(key())[0] == 204
    for i in range(5):
        assert api.put(key(), f'line {i}\n', start=i)[0] == 204
    assert api.blob(key('b'), b'{"out":"x"}\n')[0] == 204
    assert api.delete(key())[0] == 204
    assert far.lines('acct', key()) == [f'line {i}\n' for i in range(5)]
    assert far.blob('acct', key('b')) == b'{"out":"x"}\n'
    record = far.state()['records']['acct/' + key()]
    assert record['opens'] == 1 and record['closes'] == 1
    assert gw.metric('direct_calls_total') >= 3
    wait_for(lambda: gw.get('/readyz')[0] == 503)
    assert 'cannot make records durable' in gw.log()


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
