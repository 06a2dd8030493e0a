# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon and a guest's agent. The agent here is a script: it says what it is told to say, and may lie."""
import random
import subprocess
import threading
import time
import unittest

from fixture import KIND, SANITIZED, RpcError, wait_until
from test_guard import GuardCase

FEATURES = 'protocol=1 version=9.9 balloon hotplug hooks'


class Agent(threading.Thread):
    """Answers each new request with what `answer` makes of it; None = nothing."""

    def __init__(self, host, domid, answer=lambda seq: f'frozen {seq}', features=FEATURES):
        super().__init__(daemon=True)
        self.host, self.domid, self.answer = host, domid, answer
        self.home = f'/local/domain/{domid}'
        self.over = threading.Event()
        self.requests = []
        if features:
            self.write('features', features)
        self.start()

    def write(self, node, text):
        self.host.store.write(f'{self.home}/data/p2mguard/{node}', text)

    def request(self):
        return self.host.store.read_or_none(f'{self.home}/control/p2mguard')

    def run(self):
        while not self.over.wait(0.002):
            request = self.request()
            if request and request not in self.requests:
                self.requests.append(request)
                text = self.answer(request.split()[1])
                if text is not None:
                    self.write('state', text)

    def stop(self):
        self.over.set()
        self.join()

    def seq(self):
        return int(self.requests[-1].split()[1])


class Asking(GuardCase):
    def setUp(self):
        super().setUp()
        self.agents = []

    def tearDown(self):
        for agent in self.agents:
            agent.stop()
        super().tearDown()

    def agent(self, domid=1, **settings):
        self.agents.append(Agent(self.host, domid, **settings))
        return self.agents[-1]

    def require(self, domid=1, **policy):
        return self.client.hold(domid, policy=dict({'require': 'agent'}, **policy))

    def refuse(self, domid=1, **policy):
        with self.assertRaises(RpcError) as caught:
            self.require(domid, **policy)
        self.assertEqual(caught.exception.code, -32005)
        return caught.exception.data

    def test_program_that_is_executed_anew(self):
        """The agent is asked once more, and stays frozen."""
        self.host.create(1)
        agent = self.agent()
        session = self.require()
        self.client.call('events.subscribe')
        before = agent.seq()
        self.client.call('daemon.reexec')
        self.client.event('daemon.reexecuted')
        self.client.event('session.held')
        self.assertNotEqual(agent.seq(), before)
        self.client.call('guard.retry', session=session['session'])
        verdict = self.client.call('guard.verdict', session=session['session'])
        self.assertEqual((verdict['verdict'], verdict['reason']), ('proceed', 'unchanged'))
        self.client.call('guard.end', session=session['session'], outcome='failed')
        self.assertIsNone(self.host.store.read_or_none('/local/domain/1/control/p2mguard'))

    def listed(self, member):
        sessions = self.client.call('guard.list')['sessions']
        return sessions and sessions[0][member]

    def old_domain(self, domid=1):
        """One that the daemon does not take for a guest that is still coming up."""
        before = self.host.create(domid)
        self.host.kill_daemon()
        self.host.start_daemon()
        self.client = self.host.client()
        return before

    # ---- asking ----

    def test_request_is_the_guests_to_read_and_goes_with_the_session(self):
        before = self.host.create(1)
        agent = self.agent()
        session = self.require()
        self.assertEqual(session['state'], 'held')
        path = '/local/domain/1/control/p2mguard'
        self.assertEqual(agent.request(), f'freeze {agent.seq()} 10')
        self.assertEqual(self.host.store.perms(path), 'n0,r1')
        self.assertEqual(session['agent'], {'state': 'frozen', 'seq': agent.seq(), 'version': '9.9', 'text': None})
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.end(session)
        self.assertIsNone(self.host.store.read_or_none(path))
        self.assertEqual(self.host.snapshot(1), before)

    def test_the_gate_is_shut_before_the_agent_is_asked(self):
        self.host.create(1)
        seen = []
        self.agent(answer=lambda seq: seen.append(self.host.store.perms('/local/domain/1/memory/target')) or
                   f'frozen {seq}')
        self.require()
        self.assertEqual(seen, ['n0'])

    def test_events_tell_of_it(self):
        self.host.create(1)
        self.client.call('events.subscribe')
        agent = self.agent()
        self.require(agent_lease_ms=2500)
        asked = self.client.event('agent.asked')
        self.assertEqual((asked['agent']['seq'], asked['lease_ms']), (agent.seq(), 3000))
        self.assertEqual(self.client.event('agent.answered')['agent']['state'], 'frozen')
        self.client.event('session.held')

    def test_without_an_agent(self):
        before = self.old_domain()
        started = time.monotonic()
        data = self.refuse()
        self.assertEqual(data['reason'], 'agent-absent')
        self.assertLess(time.monotonic() - started, 5)
        wait_until(lambda: not self.host.journals(), 40, 'the journal gone')
        self.assertEqual(self.host.snapshot(1), before)
        self.assertIsNone(self.host.store.read_or_none('/local/domain/1/control/p2mguard'))

    def test_another_protocol_is_no_agent(self):
        self.old_domain()
        for features in ('protocol=2 balloon', 'balloon', 'protocol=1\n', '\xff\xfe', 'x' * 4000, ''):
            with self.subTest(features[:20]):
                self.host.store.write('/local/domain/1/data/p2mguard/features', features[:1900])
                self.assertEqual(self.refuse()['reason'], 'agent-absent')

    def test_agent_of_a_young_guest_is_waited_for(self):
        self.host.create(1)
        number = self.client.send('guard.begin', domain=1, wait=True,
                                  policy={'require': 'agent', 'quiet_ms': 50, 'settle_ms': 100})
        wait_until(lambda: self.listed('phase') == 'agent', 40, 'asking')
        self.agent()
        self.assertEqual(self.client.reply(number)['agent']['state'], 'frozen')

    def test_settled_goes_on_without(self):
        self.host.create(1)
        for answer, state in ((lambda seq: None, 'silent'), (lambda seq: f'refused {seq} hook 50-db: exit status 3',
                                                             'refused')):
            with self.subTest(state):
                agent = self.agent(answer=answer)
                session = self.client.hold(1, policy={'agent_wait_ms': 300})
                self.assertEqual(session['agent']['state'], state)
                self.assertEqual(self.verdict(session)['verdict'], 'proceed')
                self.end(session)
                agent.stop()

    def test_settled_does_not_ask_without_patience_and_gate_never(self):
        self.host.create(1)
        agent = self.agent()
        for policy in ({'agent_wait_ms': 0}, {'require': 'gate'}):
            session = self.client.hold(1, policy=policy)
            self.assertIsNone(session['agent'])
            self.end(session)
        self.assertEqual(agent.requests, [])

    # ---- answers ----

    def test_refusal_is_passed_on(self):
        before = self.host.create(1)
        agent = self.agent(answer=lambda seq: f'refused {seq} hook 50-database: exit status 3')
        data = self.refuse()
        self.assertEqual(data['reason'], 'agent-refused')
        self.assertEqual(data['session']['agent']['text'], 'hook 50-database: exit status 3')
        wait_until(lambda: agent.request() is None, 40, 'the request taken back')
        wait_until(lambda: not self.host.journals(), 40, 'the journal gone')
        self.assertEqual(self.host.snapshot(1), before)

    def test_silence(self):
        self.host.create(1)
        self.agent(answer=lambda seq: None)
        data = self.refuse(freeze_timeout_ms=1000)
        self.assertEqual((data['reason'], data['session']['agent']['state']), ('agent-silent', 'silent'))

    def test_busy_is_waited_for(self):
        self.host.create(1)
        agent = self.agent(answer=lambda seq: f'busy {seq}')
        number = self.client.send('guard.begin', domain=1, wait=True,
                                  policy={'require': 'agent', 'quiet_ms': 50, 'settle_ms': 100})
        wait_until(lambda: agent.requests, 40, 'a request')
        wait_until(lambda: self.listed('agent')['state'] == 'busy', 40, 'busy')
        agent.write('state', f'frozen {agent.seq()}')
        self.assertEqual(self.client.reply(number)['state'], 'held')

    def test_what_is_no_answer(self):
        self.host.create(1)
        texts = ['frozen', 'frozen 0', 'frozen {0}0', 'frozen {0} ', ' frozen {0}', 'frozen  {0}', 'frozen +{0}',
                 'frozen 0{0}', 'Frozen {0}', 'frozen {0}\n', 'frozen {0} now', 'frozen {0}.0', 'refused {0} \x01',
                 'thawed {1}', 'frozen {1}', 'x' * 1900]
        for text in texts:
            with self.subTest(text[:20]):
                agent = self.agent(answer=lambda seq: text.format(seq, int(seq) % 1000000 + 1))
                data = self.refuse(freeze_timeout_ms=400)
                self.assertEqual((data['reason'], data['session']['agent']['state']), ('agent-silent', 'silent'))
                agent.stop()

    def test_node_that_is_no_file_of_ours(self):
        self.host.create(1)
        home = '/local/domain/1/data/p2mguard'
        self.agent(answer=lambda seq: self.host.store.write(f'{home}/state/deeper/still', f'frozen {seq}'))
        self.assertEqual(self.refuse(freeze_timeout_ms=400)['reason'], 'agent-silent')

    # ---- while held ----

    def test_thaw_while_held_is_a_retry(self):
        self.host.create(1)
        agent = self.agent()
        session = self.require()
        first = agent.seq()
        for text in (f'thawed {first}', f'busy {first}', 'nonsense'):
            agent.write('state', text)
            verdict = self.verdict(session)
            self.assertEqual((verdict['verdict'], verdict['reason']), ('retry', 'agent-thawed'))
        agent.write('state', f'frozen {first}')
        self.assertEqual(self.verdict(session)['reason'], 'agent-thawed', 'that it was thawed meanwhile stays true')
        agent.write('state', f'thawed {first}')
        session = self.client.call('guard.retry', session=session['session'])
        self.assertNotEqual(agent.seq(), first)
        self.assertEqual(session['agent']['state'], 'frozen')
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_frozen_agent_stays_frozen_for_the_next_attempt(self):
        self.host.create(1)
        agent = self.agent()
        session = self.require()
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.verdict(session)['reason'], 'tot-pages-changed')
        self.host.machine.set(1, 'tot_pages', 65536)
        session = self.client.call('guard.retry', session=session['session'])
        self.assertEqual(len(agent.requests), 1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_agent_that_takes_its_word_back_before_the_hold(self):
        self.host.create(1)
        agent = self.agent(answer=lambda seq: f'frozen {seq}' if len(agent.requests) > 2 else f'thawed {seq}')
        session = self.require()
        self.assertEqual(len(agent.requests), 3)
        self.assertEqual(len(set(agent.requests)), 3)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_lease_is_renewed(self):
        self.host.create(1)
        agent = self.agent()
        session = self.require(agent_lease_ms=1000)
        # One event when the watch is set, then one a renewal: three a second.
        watch = subprocess.run(['xenstore-watch', '-n', '7', '/local/domain/1/control/p2mguard'], timeout=10,
                               env=self.host.environment, stdout=subprocess.PIPE, check=False)
        self.assertEqual(watch.stdout.count(b'\n'), 7)
        self.assertEqual(agent.request(), f'freeze {agent.seq()} 1')
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_request_that_somebody_removed(self):
        self.host.create(1)
        self.agent()
        session = self.require(agent_lease_ms=1000)
        self.host.store.remove('/local/domain/1/control/p2mguard')
        wait_until(lambda: self.verdict(session)['reason'] == 'agent-thawed', 40, 'the loss seen')
        self.assertIsNone(self.host.store.read_or_none('/local/domain/1/control/p2mguard'))
        session = self.client.call('guard.retry', session=session['session'])
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_domain_that_goes_gets_no_stale_tree(self):
        self.host.create(1)
        agent = self.agent()
        session = self.require(agent_lease_ms=1000)
        agent.stop()
        self.host.destroy(1)
        wait_until(lambda: self.client.call('guard.show', session=session['session'])['state'] == 'gone', 40, 'gone')
        time.sleep(0.7)  # as long as two renewals would have taken: that nothing happens has no event
        self.assertEqual(self.host.store.list('/local/domain/1'), [])

    # ---- trouble ----

    def test_request_outlives_a_killed_daemon_and_is_taken_back_by_the_next(self):
        before = self.host.create(1)
        agent = self.agent()
        self.require()
        self.host.kill_daemon()
        self.assertIsNotNone(agent.request())
        self.host.start_daemon()
        wait_until(lambda: agent.request() is None, 40, 'the request taken back')
        wait_until(lambda: not self.host.journals(), 40, 'the journal gone')
        self.assertEqual(self.host.snapshot(1), before)

    def test_sigterm_takes_it_back(self):
        self.host.create(1)
        agent = self.agent()
        self.require()
        self.assertEqual(self.host.stop_daemon(), 0)
        self.assertIsNone(agent.request())

    def daemon_kib(self):
        with open(f'/proc/{self.host.daemon.pid}/status', encoding='ascii') as status:
            return int(next(line.split()[1] for line in status if line.startswith('VmRSS')))

    def hostile(self, seq):
        kind = random.randrange(6)
        if kind == 0:
            return ''.join(chr(random.randrange(1, 128)) for _ in range(random.randrange(300)))
        if kind == 1:  # oxenstored takes no more from dom0 either; from a guest neither does
            return 'x' * (4000 if KIND == 'c' else 2000)
        if kind == 2:
            return f'frozen {random.randrange(1 << 40)}'
        return f'{random.choice(("frozen", "thawed", "busy", "refused"))} {seq}'

    def test_ten_thousand_hostile_answers(self):
        for domid in (1, 2):
            self.host.create(domid)
        self.client.call('events.subscribe')
        agent = self.agent(1)
        self.agent(2)
        self.require(1, attempts=100)
        other = self.require(2)
        agent.stop()
        slowest = 0.0
        for i in range(12000):
            agent.write('state', self.hostile(agent.seq()))
            if i == 2000:
                before_kib = self.daemon_kib()
            if i % 500 == 0:
                started = time.monotonic()
                self.assertEqual(self.verdict(other)['verdict'], 'proceed')
                slowest = max(slowest, time.monotonic() - started)
        grown_kib = self.daemon_kib() - before_kib
        print(f'# 10,000 hostile answers: daemon {before_kib} KiB and {grown_kib} KiB more, '
              f"slowest verdict on another guest {slowest * 1000:.1f} ms", flush=True)
        if not SANITIZED:  # the sanitizers keep freed memory for a while
            self.assertLess(grown_kib, 1024)
        self.assertEqual(self.verdict(other)['verdict'], 'proceed')
        self.client.call('daemon.info')

    def test_guest_that_fills_its_folder(self):
        self.host.create(1)
        agent = self.agent()
        session = self.require()
        for i in range(500):
            self.host.store.write(f'/local/domain/1/data/p2mguard/junk/{i}', 'x' * 1000)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.host.store.remove('/local/domain/1/data/p2mguard')
        self.assertEqual(self.verdict(session)['reason'], 'agent-thawed')
        agent.write('features', FEATURES)
        session = self.client.call('guard.retry', session=session['session'])
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    # ---- newcomers, and what is shown ----

    def test_newcomer_is_told_of_when_it_has_thawed(self):
        self.client.call('events.subscribe')
        self.host.create(5, name='moved')
        home = '/local/domain/5/data/p2mguard'
        self.host.store.write(home + '/features', FEATURES)
        self.host.store.write(home + '/state', 'busy 77')
        self.host.store.write(home + '/state', 'thawed 77')
        event = self.client.event('agent.arrived')
        self.assertEqual((event['domid'], event['name'], event['uuid']), (5, 'moved', self.host.domains[5]))
        self.assertEqual(event['agent'], {'protocol': 1, 'version': '9.9', 'features': ['balloon', 'hotplug', 'hooks'],
                                          'state': 'thawed', 'seq': 77, 'text': None})

    def test_newcomer_with_nothing_to_say(self):
        self.client.call('events.subscribe')
        self.host.create(5)
        self.host.store.write('/local/domain/5/data/p2mguard/features', 'protocol=1')
        agent = self.client.event('agent.arrived')['agent']
        self.assertEqual((agent['state'], agent['version'], agent['features']), (None, None, []))

    def test_domain_show(self):
        self.host.create(1)
        self.assertIsNone(self.client.call('domain.show', domain=1)['agent'])
        agent = self.agent()
        agent.write('state', 'refused 5 no ~ balloon')
        shown = self.client.call('domain.show', domain=1)['agent']
        self.assertEqual((shown['state'], shown['seq'], shown['text']), ('refused', 5, 'no ~ balloon'))


if __name__ == '__main__':
    unittest.main()
