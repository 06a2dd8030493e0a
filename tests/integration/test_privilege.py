# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may read and who may change, and what the log says of those who asked for a change."""
import grp
import json
import os
import re
import unittest

from fixture import NOBODY, RpcError, wait_until
from test_guard import GuardCase

NOT_PERMITTED = -32004
BURST = 10  # daemon/audit.h, AUDIT_BURST
GROUP = grp.getgrnam('games')
CHANGES = {'daemon.reexec', 'daemon.reload', 'guard.begin', 'guard.retry', 'guard.adopt', 'guard.end', 'guard.verdict'}


@unittest.skipIf(os.geteuid() != 0, 'becoming another user takes root')
class PrivilegeCase(GuardCase):
    configuration = f'[daemon]\nmax_gap_ms = 10000\nsocket_mode = 0666\nsocket_group = {GROUP.gr_name}\n'

    def setUp(self):
        super().setUp()
        os.chmod(self.host.folder, 0o755)

    def audit(self):
        with open(self.host.log_path, encoding='utf-8', errors='replace') as log:
            return [line.split(': audit: ', 1)[1] for line in log.read().splitlines() if ': audit: ' in line]


def outcome(client, method, **params):
    try:
        client.call(method, **params)
        return 'done'
    except RpcError as error:
        return error.code


class SecurityDocument(unittest.TestCase):
    def test_tests_that_it_names_are_there(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, '../../SECURITY.md'), encoding='utf-8') as file:
            names = re.findall(r'`(\w+)\.(\w+)\.(test_\w+)`', file.read())
        self.assertGreater(len(names), 20)
        for module, case, test in names:
            folder = '../packages' if module == 'life' else '.'
            with open(os.path.join(here, folder, module + '.py'), encoding='utf-8') as file:
                classes = re.split(r'^class ', file.read(), flags=re.M)
            self.assertTrue([text for text in classes if re.match(rf'{case}\b', text) and f'    def {test}(' in text],
                            f'{module}.{case}.{test}')


class Privilege(PrivilegeCase):
    def test_every_method_is_a_read_or_a_change(self):
        """As the document says which, and a reader gets no further with a change than to be told so."""
        self.host.create(1)
        session = self.client.hold(1)['session']
        document = self.client.call('rpc.discover')
        guarded = {method['name'] for method in document['methods']
                   if any(error.get('$ref', '').endswith('/NotPermitted') for error in method.get('errors', []))}
        self.assertEqual(guarded, CHANGES)
        self.assertEqual({method['name'] for method in document['methods'] if method['x-access'] != 'read'}, CHANGES)
        arguments = {'session': session, 'domain': 1, 'outcome': 'cancelled'}
        calls = {method['name']: {param['name']: arguments[param['name']] for param in method['params']
                                  if param.get('required')} for method in document['methods']}
        def body(client):
            told = {}
            for method, params in calls.items():
                for more in ({}, {'nonsense': 1}):
                    try:
                        client.call(method, **params, **more)
                        told.setdefault(method, []).append(None)
                    except RpcError as error:
                        told.setdefault(method, []).append([error.code, error.data.get('method'), error.data['what']])
            told['precopy'] = client.call('guard.verdict', session=session, phase='precopy')['verdict']
            return told
        told, _ = self.host.as_user(body)
        self.assertEqual(told.pop('precopy'), 'proceed')
        for method, (plain, nonsense) in told.items():
            if method in CHANGES:
                for answer in (plain, nonsense):
                    self.assertEqual(answer[:2], [NOT_PERMITTED, method])
                    self.assertIn('only root and members of the configured group', answer[2])
            else:
                self.assertIsNone(plain, method)
                self.assertEqual(nonsense[0], -32602, method)
        self.assertEqual(self.client.call('guard.show', session=session)['state'], 'held')

    def test_who_may_change(self):
        self.host.create(1)
        def body(client):
            return [client.call('daemon.info')['may_change'], outcome(client, 'guard.retry', session='nobody')]
        for user, may in (({'gid': GROUP.gr_gid}, True), ({'groups': [7, GROUP.gr_gid]}, True),
                          ({'uid': 0}, True), ({'uid': 0, 'gid': 0}, True),
                          ({'gid': 0}, False), ({'groups': [0]}, False), ({'uid': 1, 'gid': 1, 'groups': [2]}, False),
                          ({'groups': list(range(1000, 1100))}, False)):
            answer, _ = self.host.as_user(body, **user)
            self.assertEqual(answer, [may, -32002 if may else NOT_PERMITTED], user)

    def test_one_line_for_every_change_that_is_asked_for(self):
        self.host.create(1, name='web')
        before = len(self.audit())
        session = self.client.hold('web', hold='detached')['session']
        self.verdict({'session': session})
        self.verdict({'session': session}, phase='precopy')
        self.client.call('guard.list')
        outcome(self.client, 'guard.begin', domain='web', nonsense=1)
        outcome(self.client, 'guard.begin', domain=1)
        batch = [{'jsonrpc': '2.0', 'method': 'guard.retry', 'params': {'session': session}}] * 2
        self.client.socket.sendall(json.dumps(batch).encode() + b'\n')
        self.client.call('guard.adopt', session=session)
        self.client.call('guard.end', session=session, outcome='failed')
        mine = f'to pid {os.getpid()}, uid 0'
        its = f'{mine}, domain 1, session \'{session}\''
        self.assertEqual(self.audit()[before:], [
            f"guard.begin granted {mine}, domain 'web'", f'guard.verdict granted {its}',
            f"guard.begin invalid {mine}, domain 'web'", f"guard.begin granted {mine}, domain '1'",
            f'guard.retry granted {its}', f'guard.retry granted {its}',
            f'guard.adopt granted {its}', f'guard.end granted {its}'])

    def test_refused(self):
        self.host.create(1)
        session = self.client.hold(1)['session']
        before = len(self.audit())
        def body(client):
            return [outcome(client, 'guard.end', session=session, outcome='failed'),
                    outcome(client, 'guard.verdict', session='?'), outcome(client, 'guard.begin')]
        answer, pid = self.host.as_user(body, uid=4711)
        self.assertEqual(answer, [NOT_PERMITTED] * 3)
        his = f'refused to pid {pid}, uid 4711'
        self.assertEqual(self.audit()[before:], [f"guard.end {his}, domain 1, session '{session}'",
                                                 f"guard.verdict {his}, session '?'", f'guard.begin {his}'])

    def test_words_of_a_caller_are_no_lines_of_ours(self):
        before = len(self.audit())
        words = "x\np2mguardd: notice: audit: guard.end granted to pid 1, uid 0\n\x1b[2J' \u202e" + 'y' * 5000
        body = lambda client: outcome(client, 'guard.begin', domain=words)
        self.assertEqual(self.host.as_user(body)[0], NOT_PERMITTED)
        outcome(self.client, 'guard.begin', domain=words)
        outcome(self.client, 'guard.end', session=words, outcome='failed')
        lines = self.audit()[before:]
        self.assertEqual(len(lines), 3)
        for line in lines:
            self.assertRegex(line, r"^guard\.(begin|end) (granted|refused) to pid \d+, uid \d+, (domain|session) "
                                   r"'x\?p2mguardd:\?notice:[!-~]*'$")
            self.assertLess(len(line), 200)

    def test_flood_of_refusals_is_counted(self):
        self.host.create(1)
        before = len(self.audit())
        flood = 2000
        def body(client):
            line = json.dumps({'jsonrpc': '2.0', 'method': 'guard.begin', 'params': {'domain': 1}}).encode() + b'\n'
            client.socket.sendall(line * flood)
            return outcome(client, 'guard.begin', domain=1)
        self.assertEqual(self.host.as_user(body)[0], NOT_PERMITTED)
        # Nobody else's are lost in it.
        self.host.as_user(lambda client: outcome(client, 'guard.begin', domain=1), uid=4712)
        self.client.hold(1)
        lines = self.audit()[before:]
        self.assertEqual(len([line for line in lines if f'uid {NOBODY}' in line]), BURST)
        self.assertEqual(len([line for line in lines if 'uid 4712' in line]), 1)
        self.assertEqual(len([line for line in lines if f'pid {os.getpid()}' in line]), 1)
        more = wait_until(lambda: [line for line in self.audit() if 'more were' in line], 40, 'the count')
        self.assertEqual(more, [f'{flood + 1 - BURST} more were refused to uid {NOBODY}'])
        self.host.as_user(body)
        self.host.as_user(body)
        self.host.stop_daemon()  # which tells what is still to be told
        more = [int(re.match(r'\d+', line)[0]) for line in self.audit() if 'more were' in line]
        self.assertEqual(sum(more) + len([line for line in self.audit() if f'uid {NOBODY}' in line and 'pid' in line]),
                         3 * (flood + 1))

    def test_flood_under_many_uids(self):
        """Beyond so many, they share one count: there is a bound to what all of them together can write."""
        before = len(self.audit())
        for uid in range(20000, 20040):
            def body(client):
                return [outcome(client, 'guard.begin', domain=1) for _ in range(2 * BURST)]
            self.host.as_user(body, uid=uid)
        self.host.stop_daemon()
        lines = self.audit()[before:]
        written = [line for line in lines if 'pid' in line]
        kept = sum(int(line.split()[0]) for line in lines if 'more were' in line)
        self.assertEqual(len(written) + kept, 40 * 2 * BURST)
        self.assertTrue(any('to other uids' in line for line in lines))
        self.assertEqual(len({line.split('uid ')[1].split(',')[0] for line in written}), 33)

    def test_callers_in_xenstore(self):
        self.host.create(4)
        self.client.call('events.subscribe')
        before = len(self.audit())
        node = '/tool/p2mguard/migrate/4'
        self.host.store.write(node, 'begin quiet_ms=50 settle_ms=100')
        session = self.client.event('session.held')['session']
        self.host.store.write(node, 'nonsense')
        wait_until(lambda: (self.host.store.read_or_none(node + '/verdict') or '').startswith('error'))
        self.host.store.write(node, 'end failed')
        self.client.event('session.gone')
        wait_until(lambda: self.host.store.read_or_none(node) is None)
        its = f"to a node in xenstore, domain 4, session '{session}'"
        self.assertEqual(self.audit()[before:], ['begin granted to a node in xenstore, domain 4',
                                                 f'request invalid {its}', f'end granted {its}'])


if __name__ == '__main__':
    unittest.main()
