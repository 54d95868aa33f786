"""The main job in its simplest form."""
import asyncio

from gateway import key
from standin.clients import JavaDelegateClient, LegacyClient, OptimizedClient


def lines_of(n, text='line'):
    return [f'{text} {i}\n' for i in range(n)]


async def run_step(client, name, lines):
    """Open, and only when that is answered write: the real clients' background open is not what is tested here."""
    step = client.step('acct', name)
    await step.open()
    await step.run(lines, rate=1000)
    return step


def test_step_arrives(far, gw):
    client = LegacyClient(gw.log_url, 'token-1', speed=20, hurry=1, indirect=True)
    asyncio.run(run_step(client, key('a'), lines_of(50)))
    gw.wait_delivered()
    far.wait(lambda h: h.blob('acct', key('a')), timeout=10)
    assert [x for x in far.lines('acct', key('a'))] == lines_of(50)
