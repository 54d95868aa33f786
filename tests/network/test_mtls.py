"""A deployment whose account wants client certificates: harness.url is the vanity host's port 8443, and the
certificate is tailrace's (HP 4.6)."""
from test_denied import KEY, running
from test_picture import execute, payload


def test_execution_with_a_client_certificate(world):
    cert, key = world.corp.issue('boundary', client=True)
    with running(world, 'mtls', 'upstream', harness={'url': 'https://vanity.harness.io:8443'}, intercept={},
                 listen={'sni': None}, upstream={'certificate': cert, 'key': key}) as (gate, actors, said):
        assert said.returncode == 0, said
        answer, state, seen = execute(world, actors, payload(KEY + 'mtls', 'harness', skip=['git', 'image']))
        assert state == 'SUCCESS', answer
        gate.wait_delivered()
        shown = [e['peer_cert'] for e in seen if e['to'] == 'delegate-service']
        assert len(shown) == 2 and all('boundary' in str(c) for c in shown), shown
        calls = world.control('GET', '/log')
        lines = [e for e in calls if KEY + 'mtls' in (e.get('key') or '')]
        assert lines and all('boundary' in str(e.get('peer_cert')) for e in lines), 'the deliveries show it, too'


def test_without_the_certificate_nothing_gets_through(world):
    with running(world, 'no-mtls', 'upstream', harness={'url': 'https://vanity.harness.io:8443'}, intercept={},
                 listen={'sni': None}) as (gate, actors, said):
        assert '502' in actors.delegate.event('error')['error']
        assert actors.ui('GET', '/ng/api/x')[0] == 502
