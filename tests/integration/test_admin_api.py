"""The API on an admin listener: who may read, who may act, and what it never shows."""
import base64
import http.client
import json
import signal
import subprocess

import pytest
from gateway import key, wait_for

HASH = subprocess.run(['openssl', 'passwd', '-6', '-salt', 'saltsalt', 'correct horse'], capture_output=True, text=True,
                      check=True).stdout.strip()


@pytest.fixture
def users(tmp_path):
    path = tmp_path / 'users'
    path.write_text(f'anna:{HASH}\n')
    path.chmod(0o640)
    return path


def call(gw, method, path, user=None, **fields):
    """Status, fields and body of an answer."""
    head = {'Host': f'127.0.0.1:{gw.ports["admin"]}', **{k.replace('_', '-'): v for k, v in fields.items()}}
    if user:
        head['Authorization'] = 'Basic ' + base64.b64encode(user.encode()).decode()
    conn = http.client.HTTPConnection('127.0.0.1', gw.ports['admin'], timeout=10)
    try:
        conn.request(method, f'/api/v1/{path}', headers=head)
        answer = conn.getresponse()
        return answer.status, str(answer.headers).lower(), answer.read()
    finally:
        conn.close()


def test_reads_are_open_and_actions_are_not(gw):
    assert call(gw, 'GET', 'version')[0] == 200
    assert json.loads(call(gw, 'GET', 'access')[2]) == {'listener': 'admin', 'actions': False}


def test_actions_need_users(gw):
    status, _, body = call(gw, 'POST', 'reload', X_Tailrace_Action='1', user='anna:correct horse')
    assert status == 403 and 'listen.NAME.users' in json.loads(body)['error']


def test_actions_need_credentials(far, gateway_at, users):
    gw = gateway_at(far.url, listen={'admin': {'users': str(users)}})
    assert json.loads(call(gw, 'GET', 'access')[2])['actions'] is True
    assert call(gw, 'POST', 'reload', user='anna:correct horse')[0] == 403, 'as a page elsewhere would have a browser send it'
    status, head, _ = call(gw, 'POST', 'reload', X_Tailrace_Action='1')
    assert status == 401 and 'www-authenticate: basic realm="tailrace"' in head
    assert call(gw, 'POST', 'reload', X_Tailrace_Action='1', user='anna:wrong')[0] == 401
    assert gw.metric('config_generation') == 1
    status, _, body = call(gw, 'POST', 'reload', X_Tailrace_Action='1', user='anna:correct horse')
    assert status == 200 and json.loads(body)['generation'] == 2
    assert 'by="user=anna from=127.0.0.1' in gw.log() and 'correct' not in gw.log()
    users.write_text(f'berta:{HASH}\n')
    gw.signal(signal.SIGHUP)
    wait_for(lambda: gw.metric('config_generation') == 3)
    assert call(gw, 'POST', 'reload', X_Tailrace_Action='1', user='anna:correct horse')[0] == 401
    assert call(gw, 'POST', 'reload', X_Tailrace_Action='1', user='berta:correct horse')[0] == 200


def test_private_commands_are_not_on_the_listener(far, gw, api):
    far.fault('status', 'blob', code=400, count=None)
    assert api.open(key())[0] == 204
    assert api.blob(key(), b'{"out":"secret words"}\n')[0] == 204
    wait_for(lambda: gw.ledger('blobs')['dead'] == 1)
    letter = json.loads(call(gw, 'GET', 'dead')[2])['letters'][0]['id']
    assert call(gw, 'GET', f'dead/{letter}')[0] == 200
    status, _, body = call(gw, 'GET', f'dead/{letter}/export')
    assert status == 404 and b'secret words' not in body
    assert 'export' not in call(gw, 'GET', '')[2].decode()


def test_a_name_that_is_not_ours(far, gateway_at):
    gw = gateway_at(far.url, listen={'admin': {'public-url': 'http://status.corp.example'}})
    status, _, body = call(gw, 'GET', 'version', Host='tailrace.attacker.example')
    assert status == 421 and 'public-url' in json.loads(body)['error']
    assert call(gw, 'GET', 'version', Host='status.corp.example')[0] == 200
    assert call(gw, 'GET', 'version', Host='localhost:1234')[0] == 200
    assert gw.get('/metrics', {'Host': 'tailrace.attacker.example'})[0] == 200
