# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon counts, against sessions that have really been; and what is made of it.

The pages are read by Prometheus's library for Python, and judged by promtool.
"""
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
import unittest

from fixture import BUILD, QUICK, RpcError, wait_until
from test_guard import GuardCase
from test_unannounced import BASE, libxl

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, '../..')
PARSER = os.path.join(HERE, '../clients/openmetrics-parse.py')
RULES = SOURCE + '/doc/prometheus/p2mguard.rules.yml'
DOWN = ['# TYPE p2mguard_up gauge', '# HELP p2mguard_up Whether p2mguardd has answered.', 'p2mguard_up 0']


def why_no_parser():
    done = subprocess.run(['/usr/bin/python3', '-c', 'import prometheus_client'], stderr=subprocess.DEVNULL, check=False)
    return '/usr/bin/python3 has no prometheus_client (Debian: python3-prometheus-client)' if done.returncode else ''


def why_no_promtool():
    return '' if shutil.which('promtool') else 'there is no promtool (Debian: prometheus)'


NO_PARSER, NO_PROMTOOL = why_no_parser(), why_no_promtool()


def promtool(*arguments, text=None):
    return subprocess.run(['promtool', *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)


class Page:
    """A page of metrics, taken apart."""

    def __init__(self, text, kind='openmetrics'):
        done = subprocess.run(['/usr/bin/python3', PARSER, kind], input=text, stdout=subprocess.PIPE, text=True, check=True)
        self.families = json.loads(done.stdout)
        self.samples = {(name, *sorted(labels.items())): value for family in self.families
                        for name, labels, value in family['samples']}

    def __call__(self, metric, **labels):
        """A sample's value, None where there is none."""
        return self.samples.get(('p2mguard_' + metric, *sorted(labels.items())))

    def sum(self, metric, **labels):
        """Of all samples that have these labels."""
        return sum(value for (name, *given), value in self.samples.items()
                   if name == 'p2mguard_' + metric and set(labels.items()) <= set(given))

    def names(self):
        return {name for name, *_ in self.samples}


class MetricsCase(GuardCase):
    def page(self, client=None, kind='openmetrics'):
        return Page((client or self.client).call('daemon.metrics', format=kind)['text'], kind)

    def number(self, sample):
        """One of them, without what a whole page takes to be read: for waiting."""
        text = self.client.call('daemon.metrics', format='prometheus')['text']
        return next(float(line.split()[1]) for line in text.splitlines() if line.split()[0] == 'p2mguard_' + sample)

    def run_ctl(self, *arguments):
        done = subprocess.run([BUILD + '/p2mguardctl', '--socket', self.host.control, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def mark(self, name):
        return f'{self.host.folder}/{name}'


@unittest.skipIf(NO_PARSER, NO_PARSER)
class Counts(MetricsCase):
    def test_a_session_from_begin_to_end(self):
        fresh = self.page()
        self.assertEqual([fresh(name) for name in ('up', 'sessions_begun_total', 'hold_seconds_count', 'held_seconds_count')],
                         [1, 0, 0, 0])
        self.assertEqual(fresh('store_connected'), 1)
        self.assertEqual(fresh.sum('verdicts_total') + fresh.sum('sessions_ended_total') + fresh.sum('sessions'), 0)
        session = self.hold_with_a_wish()
        self.client.call('guard.verdict', session=session['session'], phase='precopy')
        self.verdict(session)
        held = self.page()
        self.assertEqual([held('sessions', state=state) for state in ('freezing', 'held', 'failed', 'thawing')], [0, 1, 0, 0])
        self.assertEqual(held('deferred_targets_total'), 1)
        self.assertEqual(held('hold_seconds_count'), 1)
        # What the session says of itself is in the sum, and in all buckets from its own on.
        took_s = self.client.call('guard.show', session=session['session'])['held_after_ms'] / 1000
        self.assertAlmostEqual(held('hold_seconds_sum'), took_s, delta=0.002)
        for (name, *labels), value in held.samples.items():
            if name == 'p2mguard_hold_seconds_bucket':
                self.assertEqual(value, float(dict(labels)['le']) >= round(held('hold_seconds_sum'), 3), labels)
        self.assertEqual(held('held_seconds_count'), 0)
        for phase in ('precopy', 'final'):
            self.assertEqual(held('verdicts_total', verdict='proceed', reason='unchanged', phase=phase), 1)
        self.assertEqual(held.sum('verdicts_total'), 2)
        self.assertGreater(held('longest_hold_seconds'), 0)
        self.assertGreater(held('polls_total'), 0)
        self.assertGreater(held('store_round_trips_total'), fresh('store_round_trips_total') + 20)
        # Changed: a retry, another attempt, and the end.
        self.host.machine.set(1, 'tot_pages', self.host.tot_pages(1) + 1)
        self.assertEqual(self.verdict(session)['verdict'], 'retry')
        self.client.call('guard.retry', session=session['session'])
        self.end(session, 'completed')
        over = self.page()
        self.assertEqual(over('verdicts_total', verdict='retry', reason='tot-pages-changed', phase='final'), 1)
        self.assertEqual(over.sum('verdicts_total'), 3)
        self.assertEqual([over(name) for name in ('sessions_begun_total', 'retries_total', 'hold_seconds_count',
                                                  'held_seconds_count', 'longest_hold_seconds')], [1, 1, 2, 1, 0])
        self.assertEqual(over('sessions_ended_total', outcome='completed', reason='ended'), 1)
        self.assertEqual(over.sum('sessions_ended_total'), 1)
        self.assertEqual(over.sum('sessions'), 0)
        self.assertEqual(over('requests_total', method='guard.verdict', result='ok'), 3)
        self.assertEqual(over('restore_failures_total'), 0)

    def test_a_guest_that_does_not_hold_still(self):
        self.host.create(1, mode='stubborn')
        with self.assertRaises(RpcError):
            self.client.call('guard.begin', domain=1, wait=True, policy=dict(QUICK, freeze_timeout_ms=300))
        wait_until(lambda: not self.client.call('guard.list')['sessions'], what='its end')
        page = self.page()
        self.assertEqual(page('sessions_ended_total', outcome='unknown', reason='freeze-timeout'), 1)
        self.assertEqual(page('requests_total', method='guard.begin', result='failed'), 1)
        self.assertEqual([page('hold_seconds_count'), page('held_seconds_count')], [0, 0])

    def test_what_others_do_to_a_held_guest(self):
        self.host.create(1)
        self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.machine.set(1, 'max_pages', 99999)
        self.client.event('cap.restored')
        self.host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
        self.client.event('gate.restored')
        page = self.page()
        self.assertEqual([page('caps_restored_total'), page('gates_restored_total')], [1, 1])

    def test_xenstored_that_stands_still(self):
        """Time counts as blind from when it is noticed, and only with a guest that is held."""
        self.host.create(1)
        self.host.create(2)
        blind, connected = 'blind_seconds_total{cause="store"}', 'store_connected'
        freezing = self.client.hold(2, wait=False, policy={'quiet_ms': 60000})
        wait_until(lambda: self.client.call('guard.list')['sessions'][0]['pin_kib'], what='a guest that is shown its pin')
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        wait_until(lambda: self.number(connected) == 0, 40, 'that it is noticed')
        polls = self.number('polls_total')
        wait_until(lambda: self.number('polls_total') > polls + 3, 40, 'polls')
        self.assertEqual(self.number(blind), 0)
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        wait_until(lambda: self.number(connected) == 1, 40, 'that it goes on')
        self.end(freezing)
        session = self.client.hold(1)
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        wait_until(lambda: self.number(connected) == 0, 40, 'that it is noticed')
        noticed = self.number(blind)
        wait_until(lambda: self.number(blind) > noticed + 0.5, 40, 'half a second more')
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        wait_until(lambda: self.number(connected) == 1, 40, 'that it goes on')
        self.end(session)

    def test_a_daemon_that_stood_still(self):
        self.host.configuration = '[daemon]\nmax_gap_ms = 300\n'
        self.host.stop_daemon()
        self.host.start_daemon()
        self.client = self.host.client()
        self.host.create(1)
        session = self.client.hold(1)
        os.kill(self.host.daemon.pid, signal.SIGSTOP)
        time.sleep(1)  # for that long nobody watches
        os.kill(self.host.daemon.pid, signal.SIGCONT)
        wait_until(lambda: self.number('blind_seconds_total{cause="poll"}') >= 1, what='blind time')
        self.assertGreaterEqual(self.number('poll_overruns_total'), 1)
        self.assertEqual(self.verdict(session)['reason'], 'observation-gap')

    def test_a_lost_connection(self):
        proxy = self.put_proxy_between()
        before = self.page()
        self.client.call('events.subscribe')
        proxy.cut()
        self.client.event('store.lost')
        self.assertEqual(self.page()('store_losses_total'), before('store_losses_total') + 1)

    def test_what_an_earlier_daemon_left(self):
        self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        self.host.start_daemon()
        page = self.page(self.host.client())
        self.assertEqual([page('domains_recovered_total'), page('sessions_begun_total')], [1, 0])

    def test_a_caller_in_xenstore(self):
        self.host.create(1)
        self.client.call('events.subscribe')
        self.host.store.write('/tool/p2mguard/migrate/1', 'begin')
        self.client.event('session.held')
        self.host.store.write('/tool/p2mguard/migrate/1', 'verdict')
        self.client.event('session.verdict')
        self.assertEqual(self.page()('verdicts_total', verdict='proceed', reason='unchanged', phase='final'), 1)

    def test_a_migration_that_nobody_announced(self):
        self.host.configuration += 'watch_helpers = poll\n'
        self.host.stop_daemon()
        self.host.start_daemon()
        self.client = self.host.client()
        self.host.create(BASE + 1)  # no daemon of another test has a guest of this number
        self.client.call('events.subscribe')
        helper = subprocess.Popen([shutil.copy(BUILD + '/imitated-helper', self.host.folder + '/libxl-save-helper'),
                                   *libxl(BASE + 1)], stdin=subprocess.DEVNULL)
        try:
            self.client.event('migration.seen')
            self.assertEqual(self.page()('migrations'), 1)
        finally:
            helper.kill()
            helper.wait()
        verdict = self.client.event('migration.ended')['verdict']
        page = self.page()
        self.assertEqual([page('migrations'), page('migrations_seen_total', verdict=verdict)], [0, 1])
        self.assertEqual(page.sum('migrations_seen_total'), 1)

    def test_calls_and_refusals(self):
        self.host.configuration += 'socket_mode = 0666\n'
        self.host.stop_daemon()
        self.host.start_daemon()
        self.client = self.host.client()
        os.chmod(self.host.folder, 0o755)
        def body(client):
            for method, params in (('guard.end', {'session': 'x', 'outcome': 'failed'}), ('guard.begin', {'domain': 1}),
                                   ('daemon.metrics', {})):
                client.send(method, **params)
            return ['error' in client.line(20) for _ in range(3)]
        if os.geteuid() != 0:
            self.skipTest('becoming another user takes root')
        self.assertEqual(self.host.as_user(body)[0], [True, True, False])
        for method, params in (('guard.none" 1\nx', {}), ('daemon.metrics', {'format': 'xml'}), ('guard.show', {'session': 'x'})):
            with self.assertRaises(RpcError):
                self.client.call(method, **params)
        page = self.page()
        self.assertEqual(page('audit_refusals_total'), 2)
        for method, result, count in (('guard.end', 'refused', 1), ('guard.begin', 'refused', 1), ('daemon.metrics', 'ok', 1),
                                      ('daemon.metrics', 'invalid', 1), ('unknown', 'invalid', 1), ('guard.show', 'failed', 1)):
            self.assertEqual(page('requests_total', method=method, result=result), count, (method, result))
        wait_until(lambda: self.number('connections') == 1, what='being alone')

    def test_the_process(self):
        wait_until(lambda: self.number('process_open_fds') == len(os.listdir(f'/proc/{self.host.daemon.pid}/fd')),
                   what='the same number of descriptors twice: those of a connection that has ended go a little later')
        page = self.page()
        with open(f'/proc/{self.host.daemon.pid}/status', encoding='ascii') as file:
            resident = int(re.search(r'VmRSS:\s+(\d+)', file.read())[1]) * 1024
        self.assertLess(abs(page('process_resident_memory_bytes') - resident), resident / 2)
        self.assertLess(abs(page('process_start_time_seconds') - time.time()), 60)
        self.assertEqual(page('build_info', version=self.client.call('daemon.info')['version']), 1)

    def test_both_formats_say_the_same(self):
        self.host.create(1)
        self.end(self.client.hold(1))
        own = ('p2mguard_requests_total', 'p2mguard_process_', 'p2mguard_store_round_trips', 'p2mguard_connections')
        pages = [{key: value for key, value in self.page(kind=kind).samples.items() if not key[0].startswith(own)}
                 for kind in ('openmetrics', 'prometheus')]
        self.assertEqual(*pages)
        self.assertGreater(len(pages[0]), 80)
        for family in self.page().families:
            self.assertTrue(family['help'].endswith('.'), family['name'])
            self.assertEqual(family['unit'], next((unit for unit in ('seconds', 'bytes') if family['name'].endswith(unit)), ''))


@unittest.skipIf(NO_PROMTOOL, NO_PROMTOOL)
class Promtool(MetricsCase):
    def test_the_page_is_clean(self):
        self.host.create(1)
        self.end(self.client.hold(1))
        text = self.client.call('daemon.metrics', format='prometheus')['text']
        done = promtool('check', 'metrics', text=text)
        self.assertEqual((done.returncode, done.stdout), (0, ''))
        self.assertNotEqual(promtool('check', 'metrics', text=text.replace('_total', '')).stdout, '')
        done = promtool('check', 'metrics', text='\n'.join(DOWN) + '\n')
        self.assertEqual((done.returncode, done.stdout), (0, ''))

    def test_the_alerts(self):
        folder = self.host.folder + '/rules'
        os.mkdir(folder)
        shutil.copy(RULES, folder)
        shutil.copy(os.path.join(HERE, '../clients/p2mguard.rules.test.yml'), folder)
        done = promtool('check', 'rules', folder + '/p2mguard.rules.yml')
        self.assertEqual(done.returncode, 0, done.stdout)
        done = promtool('test', 'rules', folder + '/p2mguard.rules.test.yml')
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_the_dashboards_queries(self):
        """As rules, which promtool parses; Grafana's own variables have values."""
        rules = [{'record': f'panel:{number}', 'expr': re.sub(r'\$__rate_interval', '5m', query)}
                 for number, query in enumerate(queries())]
        path = self.host.folder + '/panels.yml'
        with open(path, 'w', encoding='utf-8') as file:
            json.dump({'groups': [{'name': 'panels', 'rules': rules}]}, file)
        done = promtool('check', 'rules', '--lint=none', path)
        self.assertEqual(done.returncode, 0, done.stdout)


def dashboard():
    with open(SOURCE + '/doc/grafana/p2mguard.json', encoding='utf-8') as file:
        return json.load(file)


def queries():
    board = dashboard()
    return ([target['expr'] for panel in board['panels'] for target in panel['targets']] +
            [annotation['expr'] for annotation in board['annotations']['list']])


def metrics_in(text):
    return set(re.findall(r'\bp2mguard_\w+', text))


class Documents(MetricsCase):
    """What is written about metrics is about those that there are."""

    def exported(self):
        self.host.create(1)
        self.end(self.client.hold(1))
        text = self.client.call('daemon.metrics', format='prometheus')['text']
        return {re.match(r'\w+', line)[0] for line in text.splitlines() if not line.startswith('#')}

    def test_dashboard(self):
        board, exported = dashboard(), self.exported()
        asked = set().union(*(metrics_in(query) for query in queries()))
        self.assertEqual(asked - exported, set())
        families = {re.sub('_(bucket|sum|count)$', '', name) for name in exported}
        shown = {re.sub('_(bucket|sum|count)$', '', name) for name in asked}
        self.assertEqual(families - shown, {'p2mguard_sessions_begun_total', 'p2mguard_domains_recovered_total',
                                            'p2mguard_store_losses_total', 'p2mguard_migrations'})
        self.assertGreaterEqual(board['schemaVersion'], 37)  # Grafana 9.0
        numbers = [panel['id'] for panel in board['panels']]
        self.assertEqual(len(numbers), len(set(numbers)))
        taken = set()
        for panel in board['panels']:
            place = panel['gridPos']
            cells = {(x, y) for x in range(place['x'], place['x'] + place['w'])
                     for y in range(place['y'], place['y'] + place['h'])}
            self.assertLessEqual(place['x'] + place['w'], 24, panel['title'])
            self.assertFalse(cells & taken, panel['title'])
            taken |= cells
        [variable] = [variable for variable in board['templating']['list'] if variable['type'] == 'query']
        self.assertEqual(metrics_in(variable['definition']) - exported, set())

    def test_alerts(self):
        with open(RULES, encoding='utf-8') as file:
            text = file.read()
        asked = set().union(*(metrics_in(line) for line in text.splitlines() if 'expr:' in line))
        self.assertEqual(asked - self.exported(), set())
        self.assertGreaterEqual(len(asked), 6)

    def test_labels_that_are_asked_for(self):
        """A matcher with a value that no label ever has would never be true."""
        document = json.dumps(self.client.call('rpc.discover'))
        with open(RULES, encoding='utf-8') as file:
            texts = [line for line in file if 'expr:' in line] + queries()
        for label, value in re.findall(r'(reason|verdict|phase|state|outcome)=~?"([^"]*)"', ' '.join(texts)):
            for word in value.split('|'):
                self.assertTrue(re.search(f'"{word}"', document), f'{label}="{word}"')

    def test_manual(self):
        with open(SOURCE + '/man/p2mguard-metrics.7', encoding='utf-8') as file:
            listed = set(re.findall(r'^\.It Li (p2mguard_\w+)', file.read(), re.MULTILINE))
        self.assertEqual(listed, {re.sub('_(bucket|sum|count)$', '', name) for name in self.exported()})


class Command(MetricsCase):
    def test_on_standard_output(self):
        for arguments, start in (((), '# TYPE p2mguard_up gauge'), (('--format', 'prometheus'), '# TYPE p2mguard_up gauge'),
                                 (('--format=openmetrics',), '# TYPE p2mguard_up gauge')):
            status, out, err = self.run_ctl('metrics', *arguments)
            self.assertEqual((status, err), (0, ''))
            self.assertTrue(out.startswith(start))
            self.assertEqual(out.endswith('# EOF\n'), 'openmetrics' in str(arguments))
        status, out, _ = self.run_ctl('--json', 'metrics', '--format', 'openmetrics')
        answer = json.loads(out)
        self.assertEqual((status, set(answer)), (0, {'content_type', 'text'}))
        self.assertIn('openmetrics-text', answer['content_type'])

    def test_usage(self):
        for arguments, text in ((('x',), "unexpected argument 'x'"), (('--format', 'xml'), "--format is 'xml'"),
                                (('--colour',), '')):
            status, out, err = self.run_ctl('metrics', *arguments)
            self.assertEqual((status, out), (2, ''))
            self.assertIn(text, err)

    def test_in_a_file(self):
        path = self.mark('p2mguard.prom')
        old_mask = os.umask(0o077)
        self.addCleanup(os.umask, old_mask)
        status, out, err = self.run_ctl('metrics', '--output', path)
        self.assertEqual((status, out, err), (0, '', ''))
        first = os.stat(path)
        self.assertEqual(stat.S_IMODE(first.st_mode), 0o644)
        with open(path, encoding='utf-8') as file:
            self.assertIn('\np2mguard_up 1\n', file.read())
            self.assertEqual(self.run_ctl('metrics', '--output', path)[0], 0)
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)  # another file: whoever reads has all of the old one
        self.assertEqual([name for name in os.listdir(self.host.folder) if '.prom' in name], ['p2mguard.prom'])

    def test_a_file_that_cannot_be_written(self):
        status, out, err = self.run_ctl('metrics', '--output', self.mark('none/p2mguard.prom'))
        self.assertEqual((status, out), (1, ''))
        self.assertIn('none/p2mguard.prom failed: No such file', err)
        os.mkdir(self.mark('folder'))
        status, _, err = self.run_ctl('metrics', '--output', self.mark('folder'))
        self.assertEqual(status, 1)
        self.assertIn('folder failed: Is a directory', err)
        self.assertEqual([name for name in os.listdir(self.host.folder) if name.startswith('.')], [])

    def test_no_daemon(self):
        path = self.mark('p2mguard.prom')
        self.assertEqual(self.run_ctl('metrics', '--output', path)[0], 0)
        self.host.stop_daemon()
        self.assertEqual(self.run_ctl('metrics', '--output', path), (3, '', ''))
        with open(path, encoding='utf-8') as file:
            self.assertEqual(file.read().splitlines(), DOWN)
        self.assertEqual(self.run_ctl('metrics', '--output', path, '--format', 'openmetrics')[0], 3)
        with open(path, encoding='utf-8') as file:
            self.assertEqual(file.read().splitlines(), DOWN + ['# EOF'])
        status, out, err = self.run_ctl('metrics')
        self.assertEqual((status, out), (3, ''))
        self.assertIn('is p2mguardd running?', err)

    def test_the_same_words_without_a_daemon(self):
        """node_exporter refuses a metric that has two texts of help."""
        lines = self.run_ctl('metrics')[1].splitlines()
        self.assertEqual(lines[:3], DOWN[:2] + ['p2mguard_up 1'])

    def test_a_daemon_that_hangs(self):
        path = self.mark('p2mguard.prom')
        os.kill(self.host.daemon.pid, signal.SIGSTOP)
        try:
            status, _, err = self.run_ctl('metrics', '--output', path)
        finally:
            os.kill(self.host.daemon.pid, signal.SIGCONT)
        self.assertEqual((status, err), (3, ''))
        with open(path, encoding='utf-8') as file:
            self.assertEqual(file.read().splitlines(), DOWN)

    def test_a_socket_without_a_daemon_is_not_asked(self):
        """It is systemd's, and asking would start one."""
        self.host.stop_daemon()
        if os.path.exists(self.host.control):
            os.unlink(self.host.control)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.host.control)
            listener.listen()
            listener.setblocking(False)
            self.assertEqual(self.run_ctl('metrics', '--output', self.mark('p2mguard.prom'))[0], 3)
            with self.assertRaises(BlockingIOError):
                listener.accept()


if __name__ == '__main__':
    unittest.main()
