# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon does what the OpenRPC document says, all of it and nothing else; and CONTROL.md says the same."""
import json
import os
import re
import shutil
import signal
import subprocess
import unittest
from contextlib import contextmanager

from contract import HERE, Contract, Judge, Ledger, Witness, read_document
from fixture import BUILD, HVM, KIND, QUICK, Host, RpcError, wait_until
from test_asking import Agent
from test_unannounced import BASE, libxl

REPLY_MAX_BYTES = 64 << 20

# What takes long and has nothing to do with xenstored is done with one of the two.
ONCE = KIND == 'c'


class Tour:
    """Goes through all of the document, with a host of its own for each chapter."""

    def __init__(self):
        self.contract = Contract(read_document())
        self.judge = Judge()
        try:
            self.ledger = Ledger(self.contract, self.judge)
            with self.stopped_xenstored():  # takes its time, in which the rest is done
                self.a_migration()
                self.a_migration_that_nobody_announced()
                self.caller_in_xenstore()
                self.guests_that_cannot_be_held()
                self.parameters()
                self.calls_that_are_wrong()
                self.callers_who_may_only_read()
                self.limits()
                self.configurations()
                if ONCE:
                    self.no_room()
                self.daemon_that_restarts()
                self.events_that_are_lost()
                self.domain_that_goes_while_it_is_looked_up()
        finally:
            self.judge.close()

    @contextmanager
    def host(self, configuration=None):
        host = Host(configuration)
        try:
            yield host, self.witness(host)
        finally:
            host.stop()

    def witness(self, host):
        witness = Witness(host.control, self.ledger)
        host.clients.append(witness)
        return witness

    def refused(self, error, witness, method, **params):
        """A call that is to end in this error; the error's data."""
        try:
            result = witness.call(method, **params)
        except RpcError as caught:
            if caught.code != self.contract.errors[error]['code']:
                raise AssertionError(f'{method} {params}: {caught} and not {error}') from caught
            return caught.data
        raise AssertionError(f'{method} {params}: {result} and not {error}')

    # ---- chapters ----

    def a_migration(self):
        with self.host() as (host, witness):
            witness.call('events.subscribe')
            host.create(1, name='caf\xe9', generation=2)  # as latin-1, which is no UTF-8
            host.create(2, offset_kib=64, flags=HVM)
            agents = [Agent(host, 1)]
            try:
                witness.event('agent.arrived', domid=1)
                self._hold_disturb_and_end(host, witness)
            finally:
                for agent in agents:
                    agent.stop()
            host.daemon.send_signal(signal.SIGHUP)
            witness.event('daemon.reloaded')
            self._execute_anew(host, witness)

    @staticmethod
    def _execute_anew(host, witness):
        session = witness.hold(2)['session']
        witness.call('daemon.reexec')
        witness.event('session.resumed', session=session)
        witness.event('daemon.reexecuted', sessions=1)
        with open(host.folder + '/p2mguard.conf', 'a', encoding='ascii') as file:
            file.write('nonsense\n')
        witness.call('daemon.reexec')
        witness.event('daemon.reexec_failed')

    def _hold_disturb_and_end(self, host, witness):
        session = witness.hold(1, policy={'require': 'agent'})['session']
        other = witness.hold(2)['session']
        for kind in ('agent.asked', 'agent.answered', 'session.held'):
            witness.event(kind, session=session)
        host.mem_set(1, 300000)
        witness.event('target.deferred')
        host.machine.set(1, 'max_pages', 99999)
        witness.event('cap.restored', max_kib=399996)
        host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
        witness.event('gate.restored')
        for name in self.contract.methods:
            if not name.startswith('guard.') and name not in ('events.subscribe', 'daemon.reexec'):
                witness.call(name, **({'domain': 1} if name in ('domain.show', 'domain.policy') else {}))
        witness.call('domain.show', domain=2)
        witness.call('guard.list')
        for phase in ('precopy', 'final'):
            witness.call('guard.verdict', session=session, phase=phase)
        self._change_everything(host, witness, session, other)
        witness.call('guard.retry', session=session)
        witness.call('guard.show', session=session)
        witness.call('guard.history')
        witness.call('guard.history', session=session)
        for hold in ('detached', 'connection'):
            witness.call('guard.adopt', session=other, hold=hold)
            witness.event('session.adopted', hold=hold)
        self.refused('Busy', witness, 'guard.begin', domain=1)
        for name in (session, other):
            witness.call('guard.end', session=name, outcome='completed')
            witness.call('guard.history', session=name)
        self.refused('WrongState', witness, 'guard.retry', session=session)
        self.refused('WrongState', witness, 'guard.adopt', session=session)

    @staticmethod
    def _change_everything(host, witness, session, other):
        """A session.changed for each figure; of the p2m's whereabouts and its top, whichever is seen first."""
        def changed(name, *members):
            while not set(members) & set(witness.event('session.changed', session=name)['now']):
                pass
        host.machine.set(1, 'tot_pages', 65530)
        changed(session, 'tot_kib')
        host.layouts[1].set('p2m_generation', 4)
        changed(session, 'generation')
        host.layouts[1].set('max_pfn', 60000)
        changed(session, 'p2m', 'top')
        host.machine.set(2, 'shared_pages', 7)
        changed(other, 'physmap')

    def a_migration_that_nobody_announced(self):
        with self.host('[daemon]\nwatch_helpers = poll\n') as (host, witness):
            witness.call('events.subscribe')
            domid = BASE  # no daemon of another test has a guest of this number
            host.create(domid, name='caf\xe9')
            helper = subprocess.Popen([shutil.copy(BUILD + '/imitated-helper', host.folder + '/libxl-save-helper'),
                                       *libxl(domid)], stdin=subprocess.DEVNULL)
            try:
                witness.event('migration.seen')
                host.machine.set(domid, 'tot_pages', 65000)
                witness.event('migration.changed', what='tot_kib')
                host.mem_set(domid, 262000)
                witness.event('migration.changed', what='target_kib')
                witness.call('migration.list')
            finally:
                helper.kill()
                helper.wait()
            witness.event('migration.ended')
            witness.call('migration.list')

    def caller_in_xenstore(self):
        with self.host() as (host, witness):
            witness.call('events.subscribe')
            host.create(1, name='caf\xe9')
            host.store.write('/tool/p2mguard/migrate/1', 'begin')
            witness.event('session.held')
            [session] = witness.call('guard.list')['sessions']
            witness.call('guard.adopt', session=session['session'])

    def guests_that_cannot_be_held(self):
        with self.host() as (host, witness):
            witness.call('events.subscribe')
            host.create(1, mode='stubborn')
            self.refused('NotHeld', witness, 'guard.begin', domain=1, wait=True, policy=dict(QUICK, freeze_timeout_ms=300))
            witness.event('session.failed')
            host.create(2)
            session = witness.hold(2, policy={'attempts': 2, 'retry_backoff_ms': 20000})['session']
            number = witness.send('guard.retry', session=session)
            witness.event('session.retry')
            host.destroy(2)
            try:
                witness.reply(number)
            except RpcError:
                pass
            host.create(3)
            session = witness.hold(3, policy={'attempts': 1})['session']
            self.refused('Limit', witness, 'guard.retry', session=session)
            host.create(4)
            host.store.remove('/local/domain/4/memory/target')
            for domain in (0, 4):
                host.machine.set(0, 'used', 1)
                self.refused('NotGuardable', witness, 'guard.begin', domain=domain, wait=True)
            witness.event('session.gone', wanted_target_kib=None)

    def parameters(self):
        """Each takes what the document says, up to the limits, and nothing else."""
        needed = {'domain': 'nobody', 'session': '1-00000000', 'outcome': 'failed'}
        with self.host() as (_, witness):
            for name, method in self.contract.methods.items():
                given = {parameter['name']: needed[parameter['name']] for parameter in method['params']
                         if parameter.get('required')}
                for parameter in method['params']:
                    for value in self.contract.candidates(parameter['schema']):
                        self._try_value(witness, name, parameter['name'], value, given)
            defaults = {member: schema['default'] for member, schema in
                        self.contract.document['components']['schemas']['PolicyMembers']['properties'].items()}
            if witness.call('daemon.info')['policy'] != defaults:
                raise AssertionError("the daemon's defaults are not the document's")

    def _try_value(self, witness, method, parameter, value, given):
        allowed = not self.judge.ask(name=f'param-{method}-{parameter}', value=value)
        try:
            witness.call(method, **{**given, parameter: value})
            taken = True
        except RpcError as caught:  # what does not exist was asked for rightly
            taken = caught.code != self.contract.errors['InvalidParams']['code']
        if taken != allowed:
            raise AssertionError(f'{method} with {parameter} {value!r}: taken {taken}, allowed {allowed}')

    def calls_that_are_wrong(self):
        with self.host('[daemon]\nmax_connections = 2\n') as (host, witness):
            for name, method in self.contract.methods.items():
                self.refused('InvalidParams', witness, name, bogus=1)
                given = {parameter['name'] for parameter in method['params']}
                if 'session' in given:
                    more = {'outcome': 'failed'} if 'outcome' in given else {}
                    self.refused('NoSuchSession', witness, name, session='1-00000000', **more)
                if 'domain' in given:
                    for domain in (9, 'nobody', 'a' + '\xe9' * 300):
                        self.refused('NoSuchDomain', witness, name, domain=domain)
            self.refused('InvalidParams', witness, 'guard.begin', domain=1, policy={'a' + '\xe9' * 300: 1})
            self.refused('InvalidParams', witness, 'guard.begin', domain=1, **{'\U0001f411' * 300: 1})
            self.refused('MethodNotFound', witness, 'guard.' + '\xe9' * 300)
            self._lines_that_are_no_requests(host, witness)

    def _lines_that_are_no_requests(self, host, witness):
        for line, error in ((b'{', 'Parse'), (b'\xff', 'Parse'), (b'[]', 'InvalidRequest'), (b'7', 'InvalidRequest'),
                            (b'{"jsonrpc":"2.0","id":{},"method":"guard.list"}', 'InvalidRequest'),
                            (b'{"jsonrpc":"2.0","method":"guard.list","params":null}', 'InvalidRequest'),
                            (b'{"id":1,"id":1}', 'InvalidRequest'), (b'[1,{}]', 'InvalidRequest')):
            witness.socket.sendall(line + b'\n')
            message = witness.line(20)
            for reply in message if isinstance(message, list) else [message]:
                if reply['error']['code'] != self.contract.errors[error]['code']:
                    raise AssertionError(f'{line}: {reply}')
        other = self.witness(host)
        last = self.witness(host)
        if last.line(20)['error']['data']['limit'] != 2:
            raise AssertionError('one too many was not told of the limit')
        other.socket.sendall(b'x' * 65536)
        other.line(20)
        try:
            other.line(20)
            raise AssertionError('the conversation goes on after a line that is too long')
        except EOFError:
            pass

    def callers_who_may_only_read(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest('becoming another user takes root')
        with self.host('[daemon]\nsocket_mode = 0666\n') as (host, _):
            os.chmod(host.folder, 0o755)
            calls = [(name, {parameter['name']: 1 if parameter['name'] == 'domain' else 'x'
                             for parameter in method['params'] if parameter.get('required')})
                     for name, method in self.contract.methods.items()]
            requests = [{'jsonrpc': '2.0', 'id': number, 'method': name, 'params': params}
                        for number, (name, params) in enumerate(calls)]
            for reply in self._answers_to_nobody(host, requests):
                name = calls[reply['id']][0]
                self.ledger.see(reply, name)
                refused = reply.get('error', {}).get('code') == self.contract.errors['NotPermitted']['code']
                if refused != self.contract.methods[name]['x-access'].startswith('change') and name != 'guard.verdict':
                    raise AssertionError(f'x-access of {name}: {reply}')

    @staticmethod
    def _answers_to_nobody(host, requests):
        """What the user nobody is answered."""
        def body(client):
            client.socket.sendall(json.dumps(requests).encode() + b'\n')
            return client.line(20)
        return host.as_user(body)[0]

    def limits(self):
        with self.host('[daemon]\nmax_sessions = 1\n') as (host, witness):
            for domid in (1, 2):
                host.create(domid)
            witness.hold(1)
            self.refused('Limit', witness, 'guard.begin', domain=2)

    def configurations(self):
        with self.host('[policy]\nattempts = 4\n[domain caf?]\nattempts = 5\nguard = no\n') as (host, witness):
            host.create(1, name='caf\xe9')
            host.create(2)
            witness.call('daemon.config')
            for domain in (1, 2):
                witness.call('domain.policy', domain=domain)
            self.refused('NotGuardable', witness, 'guard.begin', domain=1)
            for text, good in (('[daemon]\nmax_connections = 9\n', True), ('[daemon]\nmax_connections = 0\n', False)):
                with open(host.folder + '/p2mguard.conf', 'w', encoding='ascii') as file:
                    file.write(text)
                if good:
                    witness.call('daemon.reload')
                    witness.call('daemon.config')
                else:
                    self.refused('Configuration', witness, 'daemon.reload')
            os.unlink(host.folder + '/p2mguard.conf')
            self.refused('Configuration', witness, 'daemon.reload')

    def no_room(self):
        """A batch whose answers are longer than a message may be: those that have no room left are an Internal each."""
        with self.host() as (host, witness):
            for domid in range(1, 262):
                host.create(domid, name=f'{domid}' + '\x01' * 120)  # which JSON makes 720 bytes of
            held = witness.hold(1)['session']
            numbers = [witness.send('guard.begin', domain=domid, hold='detached', policy={'quiet_ms': 60000})
                       for domid in range(2, 261)]
            for number in numbers:
                witness.reply(number)
            client = host.client()
            wait_until(lambda: all(session['pin_kib'] for session in client.call('guard.list')['sessions']),
                       what='records that do not change any more')
            def size(method, params):
                client.send(method, **params)
                return len(client.text(60)) + 1
            # From the longest answer to the shortest: whatever is too long for the rest of the room becomes an error.
            calls = [('guard.list', {}), ('rpc.discover', {}), ('guard.show', {'session': held}), ('daemon.info', {}),
                     ('domain.show', {'domain': 261}), ('guard.verdict', {'session': held, 'phase': 'precopy'})]
            lengths = sorted(((size(*call), *call) for call in calls), key=lambda entry: -entry[0])
            fill, room = [], REPLY_MAX_BYTES
            for length, method, params in lengths:
                fill += [(method, params)] * (room // length + 3)  # sizes differ a little each time
                room = length  # at most, when one more did not fit
            given = {'session': held, 'domain': 261, 'outcome': 'failed'}
            last = [(name, {parameter['name']: given[parameter['name']] for parameter in method['params']
                            if parameter.get('required')})
                    for name, method in self.contract.methods.items()]
            last.sort(key=lambda call: call[0] == 'guard.end')
            # On a busy machine a lookup may be given up before it is its turn to find no room.
            missing = {(name, 'Internal') for name in self.contract.methods}
            for _ in range(3):
                self._send_too_much(client, fill + last)
                if missing <= self.ledger.errors:
                    break

    def _send_too_much(self, client, calls):
        if len(calls) > 256:
            raise AssertionError(f'{len(calls)} calls are too many for a batch')
        client.socket.sendall(json.dumps([{'jsonrpc': '2.0', 'id': number, 'method': name, 'params': params}
                                          for number, (name, params) in enumerate(calls)]).encode() + b'\n')
        while not (text := client.text(120)).startswith(b'['):
            pass  # an event, for one of the calls subscribes
        if len(text) >= REPLY_MAX_BYTES:
            raise AssertionError(f'{len(text)} bytes are longer than a message may be')
        for error in re.findall(rb'\{"jsonrpc":"2\.0","id":\d+,"error":\{[^{}]*\{[^{}]*\}\}\}', text):
            reply = json.loads(error)
            self.ledger.see(reply, calls[reply['id']][0])

    def daemon_that_restarts(self):
        with self.host() as (host, witness):
            host.create(1)
            witness.hold(1, hold='detached')
            host.kill_daemon()
            host.start_daemon()
            witness = self.witness(host)
            witness.call('events.subscribe', **{'from': 1})
            for kind in ('domain.recovered', 'daemon.started'):
                witness.event(kind)
            host.restart_xenstored()
            for kind in ('store.lost', 'store.back'):
                witness.event(kind)
            host.daemon.terminate()
            witness.event('daemon.stopping')

    def events_that_are_lost(self):
        with self.host() as (host, witness):
            host.create(1)
            session = witness.hold(1)['session']
            witness.call('guard.end', session=session, outcome='failed')
            client = host.client()
            verdict = {'jsonrpc': '2.0', 'id': 1, 'method': 'guard.verdict', 'params': {'session': session}}
            for _ in range(17):  # each tells of a final verdict
                client.socket.sendall(json.dumps([verdict] * 256).encode() + b'\n')
                client.text(60)
            late = self.witness(host)
            late.call('events.subscribe', **{'from': 1})
            late.event('events.lost')

    def domain_that_goes_while_it_is_looked_up(self):
        with self.host() as (host, witness):
            host.create(1)
            os.kill(host.xenstored.pid, signal.SIGSTOP)
            number = witness.send('guard.begin', domain=1)
            wait_until(lambda: witness.call('daemon.info')['store'] == 'stalled', what='a lookup that waits')
            host.machine.set(1, 'used', 0)
            os.kill(host.xenstored.pid, signal.SIGCONT)
            try:
                raise AssertionError(f'{witness.reply(number)} of a domain that is gone')
            except RpcError as caught:
                if caught.code != self.contract.errors['NoSuchDomain']['code']:
                    raise

    @contextmanager
    def stopped_xenstored(self):
        with self.host() as (host, witness):
            for domid in (1, 2):
                host.create(domid)
            session = witness.hold(1)['session']
            os.kill(host.xenstored.pid, signal.SIGSTOP)
            numbers = [witness.send(method, **params)
                       for method, params in (('guard.end', {'session': session, 'outcome': 'failed'}),
                                              ('guard.begin', {'domain': 2}), ('domain.show', {'domain': 2}),
                                              ('domain.policy', {'domain': 2}), ('domain.list', {}))]
            yield
            for number in numbers:
                try:
                    raise AssertionError(f'{witness.reply(number)} without xenstored')
                except RpcError as caught:
                    if caught.code != self.contract.errors['Store']['code']:
                        raise


class Tours:
    """The same for all tests; one that has failed is made again once or twice, and not by every test, for it takes its time."""
    MOST = 3
    whole = error = None
    made = 0

    @classmethod
    def get(cls):
        if not cls.whole:
            if cls.made == cls.MOST:
                raise cls.error
            cls.made += 1
            try:
                cls.whole = Tour()
            except Exception as error:
                cls.error = error
                raise
        return cls.whole


class Conformance(unittest.TestCase):
    def test_the_document_is_an_openrpc_document(self):
        judge = Judge()
        self.addCleanup(judge.close)
        self.assertEqual(judge.ask(openrpc=read_document()), [])

    def test_the_judge_finds_faults(self):
        judge = Judge()
        self.addCleanup(judge.close)
        def spoil(change):
            document = read_document()
            change(document)
            return judge.ask(openrpc=document)
        self.assertIn('additional', str(spoil(lambda document: document['methods'][0].update(bogus=1))))
        self.assertIn('/components/schemas/State/type',
                      str(spoil(lambda document: document['components']['schemas']['State'].update(type='text'))))
        self.assertIn('required', str(spoil(lambda document: document['info'].pop('title'))))
        judge.ask(learn=Contract(read_document()).schemas())
        for value, fault in (({'what': '', 'session': ''}, ''), ({'what': ''}, 'session'), ({'what': 1, 'session': ''}, 'string'),
                             ({'what': '', 'session': '', 'more': 1}, 'more')):
            faults = judge.ask(name='error-NoSuchSession', value=value)
            self.assertEqual(bool(faults), bool(fault), value)
            self.assertIn(fault, str(faults))

    def test_every_object_in_the_document_is_described(self):
        """Else the strictest judge would let anything pass."""
        def walk(schema, where):
            if isinstance(schema, dict):
                if 'object' in schema.get('type', []) and where[-1] != 'properties':
                    self.assertTrue('properties' in schema or 'additionalProperties' in schema, where)
                    if 'properties' in schema and 'x-events' not in where:
                        self.assertLessEqual(set(schema.get('required', [])), set(schema['properties']), where)
                for key, value in schema.items():
                    walk(value, where + [key])
            elif isinstance(schema, list):
                for key, value in enumerate(schema):
                    walk(value, where + [key])
        document = read_document()
        walk(document, ['document'])
        self.assertEqual(set(document['x-errors']), set(document['components']['errors']))

    def test_the_daemon_keeps_to_the_document(self):
        self.assertEqual('\n'.join(Tours.get().ledger.faults), '')

    def test_every_method_has_answered(self):
        self.assertEqual(Tours.get().ledger.results, set(Tours.get().contract.methods))

    def test_every_error_was_provoked(self):
        contract, seen = Tours.get().contract, Tours.get().ledger.errors
        promised = {(method, error) for method, errors in contract.method_errors.items() for error in errors}
        promised |= {(None, error) for error in contract.protocol_errors}
        if not ONCE:
            promised = {(method, error) for method, error in promised if error != 'Internal'}
        self.assertEqual(promised - seen, set())

    def test_every_event_was_seen(self):
        self.assertEqual(Tours.get().ledger.events, set(Tours.get().contract.events))


class ControlMd(unittest.TestCase):
    """protocol/CONTROL.md, which is for people, names the same words as the document, which is for programs."""

    def setUp(self):
        with open(os.path.join(HERE, '../../protocol/CONTROL.md'), encoding='utf-8') as file:
            self.text = file.read()
        self.document = read_document()
        self.schemas = self.document['components']['schemas']

    def section(self, heading):
        """What stands below a heading, up to the next one."""
        return self.text.split(heading, 1)[1].split('\n#', 1)[0]

    def table(self, heading):
        """The rows of the first table there, without the line of its headings."""
        lines = [line for line in self.section(heading).splitlines() if line.startswith('|')]
        return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]

    @staticmethod
    def words(text):
        """Those in backquotes, but not what stands in parentheses."""
        return re.findall(r'`([^`]+)`', re.sub(r'\([^)]*\)', '', text))

    def test_errors(self):
        told = {int(code): set(self.words(data)) | {'what'} for code, _, data in self.table('## Errors')}
        self.assertEqual(told, {error['code']: set(self.document['x-errors'][name]['data']['properties'])
                                for name, error in self.document['components']['errors'].items()})

    def test_events(self):
        events = {event['type']: set(event['members']) for event in self.document['x-events']}
        told = {}
        inner = set(self.schemas['Observation']['properties']) | {'target_kib'}
        for kinds, _, members in self.table('### events.subscribe'):
            kinds, members = self.words(kinds), set(self.words(members))
            told.update({kind: members for kind in kinds})
            expected = set().union(*(events[kind] for kind in kinds))
            self.assertEqual(members - (inner if 'before' in members else set()),
                             expected - (inner if 'before' in members else set()), kinds)
        self.assertEqual(set(told), set(events))

    def test_methods(self):
        headings = dict(re.findall(r'^### ([a-z.]+)(?: \{([^}]*)\})? ->', self.text, re.MULTILINE))
        told = {name: {parameter for parameter in parameters.split(', ') if parameter}
                for name, parameters in headings.items()}
        self.assertEqual(told, {method['name']: {parameter['name'] + ('' if parameter.get('required') else '?')
                                                 for parameter in method['params']}
                                for method in self.document['methods']})

    def test_who_may_do_what(self):
        section = self.section('## Who may do what')
        told = {word for word in self.words(section) if word in {method['name'] for method in self.document['methods']}}
        self.assertEqual(told, {method['name'] for method in self.document['methods']
                                if method['x-access'].startswith('read')})

    def test_policy(self):
        told = {}
        for member, default, limits, _ in self.table('### guard.begin'):
            range_of = re.fullmatch(r'(\d+) to (\d+)', limits)
            told[member.strip('`')] = (json.loads(default.strip('`')), [int(limit) for limit in range_of.groups()]
                                       if range_of else [json.loads(word) for word in self.words(limits)])
        members = self.schemas['PolicyMembers']['properties']
        self.assertEqual(told, {name: (member['default'], [member['minimum'], member['maximum']] if 'minimum' in member
                                       else self.schemas['Require']['enum']) for name, member in members.items()})

    def test_reasons(self):
        told = self.section('## Reasons').strip().rstrip('.').replace('\n', ' ').split(', ')
        self.assertEqual(told, self.schemas['Reason']['enum'])


if __name__ == '__main__':
    unittest.main()
