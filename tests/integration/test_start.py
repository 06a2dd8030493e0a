# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs as they are started and ended: command lines, what is missing, and what systemd is told."""
import ctypes.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from fixture import BUILD, QUICK, wait_until
from test_guard import GuardCase

REAL = 'P2MGUARD_REAL_SAVE_HELPER'


def run(program, *arguments, **environment):
    """Its status, and what it said to either."""
    ended = subprocess.run([f'{BUILD}/{program}', *arguments], env=dict(os.environ, **environment), stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


class CommandLines(unittest.TestCase):
    def assert_says(self, program, *arguments, says):
        status, out, err = run(program, *arguments)
        self.assertEqual((status, err), (0, ''), (program, arguments))
        self.assertTrue(out.startswith(says), out)

    def assert_refuses(self, program, *arguments, says):
        status, out, err = run(program, *arguments)
        self.assertEqual((status, out), (2, ''), (program, arguments))
        self.assertIn(says, err)

    def test_daemon(self):
        self.assert_says('p2mguardd', '--version', says='p2mguardd ')
        self.assert_says('p2mguardd', '--help', says='usage: p2mguardd ')
        self.assert_refuses('p2mguardd', '--nonsense', says='usage: p2mguardd ')
        self.assert_refuses('p2mguardd', 'extra', says="unexpected argument 'extra'")
        self.assert_refuses('p2mguardd', '--log-level', 'loud', says="--log-level is 'loud'")
        self.assert_refuses('p2mguardd', '--config', '/nonexistent/file', says='/nonexistent/file')
        self.assert_refuses('p2mguardd', '--socket', '/' + 108 * 'x', says='--socket is too long')

    def test_thaw(self):
        self.assert_says('thaw', '--version', says='thaw (p2mguard) ')
        self.assert_says('thaw', '--help', says='usage: thaw ')
        for arguments in ((), ('--nonsense',), ('1', '2'), ('--all', '1')):
            self.assert_refuses('thaw', *arguments, says='usage: thaw ')

    def test_ctl(self):
        self.assert_says('p2mguardctl', '--version', says='p2mguardctl ')
        self.assert_says('p2mguardctl', '--help', says='usage: p2mguardctl ')

    def test_save_helper(self):
        self.assert_says('save-helper', '--version', says='p2mguard save-helper ')
        status, _, err = run('save-helper', '--nonsense', **{REAL: '/nonexistent/helper'})
        self.assertEqual(status, 127)
        self.assertIn('/nonexistent/helper: No such file', err)

    def test_save_helper_of_the_libxl_that_has_started_us(self):
        library = ctypes.util.find_library('xenlight')
        if not library:
            self.skipTest('there is no libxl here')
        # It is told from the libraries of the process above, which for a test has to have that of libxl.
        script = ('import ctypes, resource, subprocess, sys; ctypes.CDLL(sys.argv[1]);'
                  'resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); subprocess.call(sys.argv[2:])')
        environment = {name: value for name, value in os.environ.items() if name != REAL}
        ended = subprocess.run([sys.executable, '-c', script, library, BUILD + '/save-helper', '--nonsense'],
                               env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                               check=True)
        self.assertIn('unexpected mode argument', ended.stderr)  # says libxl's own


class Start(GuardCase):
    """Of another daemon, beside one that has its socket elsewhere."""

    def run_daemon(self, control, **environment):
        status, out, err = run('p2mguardd-imitated', '--socket', control, '--config', self.host.folder + '/p2mguard.conf',
                               **dict(self.host.environment, **environment))
        self.assertEqual(out, '')
        return status, err

    def test_no_lock(self):
        status, err = self.run_daemon('/proc/nowhere/control')
        self.assertEqual(status, 1)
        self.assertIn('the lock /proc/nowhere/control.lock cannot be had', err)
        status, _, err = run('thaw-imitated', '--socket', '/proc/nowhere/control', '--all', **self.host.environment)
        self.assertEqual(status, 1)
        self.assertIn('the lock /proc/nowhere/control.lock cannot be had', err)

    def test_no_hypervisor(self):
        nowhere = {'P2MGUARD_IMITATED_MACHINE': '/nonexistent'}
        status, err = self.run_daemon(self.host.folder + '/other', **nowhere)
        self.assertEqual(status, 1)
        self.assertIn('asking the hypervisor failed: ', err)
        status, _, err = run('thaw-imitated', '--socket', self.host.folder + '/other', '--all',
                             **dict(self.host.environment, **nowhere))
        self.assertEqual(status, 1)
        self.assertIn('asking the hypervisor failed: ', err)

    def test_no_room_for_the_socket(self):
        self.host.stop_daemon()
        path = self.host.folder + '/taken'
        with open(path, 'w', encoding='ascii') as file:
            file.write('precious')
        status, err = self.run_daemon(path)
        self.assertEqual(status, 1)
        self.assertIn(f'listening on {path} failed', err)
        with open(path, encoding='ascii') as file:
            self.assertEqual(file.read(), 'precious')


class Systemd(GuardCase):
    """What it is told, by a daemon that takes us for it."""

    def listen(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(self.host.folder + '/notify')
        listener.settimeout(20)
        return listener

    def told(self, listener, text):
        """The messages up to one that has the line."""
        messages = []
        while not messages or text not in messages[-1].splitlines():
            messages.append(listener.recv(4096).decode())
        return messages

    def test_life(self):
        self.host.create(1)
        self.host.stop_daemon()
        listener = self.listen()
        self.host.environment.update(NOTIFY_SOCKET=self.host.folder + '/notify', WATCHDOG_USEC='200000')
        self.host.environment.pop('WATCHDOG_PID', None)
        self.host.start_daemon()
        self.told(listener, 'READY=1')
        for _ in range(3):
            self.told(listener, 'WATCHDOG=1')
        self.host.daemon.terminate()
        self.assertNotIn('READY=1', ''.join(self.told(listener, 'STOPPING=1')))
        self.assertEqual(self.host.daemon.wait(30), 0)

    def test_end_without_xenstored(self):
        """It does not wait for ever, says what it leaves behind, and the next one puts it back."""
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.host.xenstored.pid, signal.SIGCONT)
        self.host.daemon.terminate()
        self.host.daemon.send_signal(signal.SIGINT)  # once is enough
        self.assertEqual(self.host.daemon.wait(60), 1)
        self.assertIn('1 sessions could not be put back in 20 s', self.host.log_tail())
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.assertEqual(self.host.journals(), ['1'])
        self.host.start_daemon()
        wait_until(lambda: not self.host.journals(), what='what was left is put back')
        self.assertEqual(self.host.snapshot(1), before)


class Ctl(GuardCase):
    def test_policies_it_understands(self):
        self.host.create(1)
        for policy in ('quiet_ms', 80 * 'x' + '=1'):
            status, out, err = run('p2mguardctl', '--socket', self.host.control, 'begin', '--policy', policy, '1')
            self.assertEqual((status, out), (2, ''))
            self.assertIn(f"--policy is '{policy}', expected KEY=VALUE", err)
        self.assertEqual(self.client.call('guard.list')['sessions'], [])
        status, out, err = run('p2mguardctl', '--socket', self.host.control, 'begin', '--detached', '--policy',
                               'require=gate', '1')
        self.assertEqual(status, 0, err)
        self.assertEqual(self.client.call('guard.show', session=out.strip())['policy']['require'], 'gate')

    def test_events_are_for_people_as_well(self):
        self.host.create(1, name='web')
        process = subprocess.Popen([BUILD + '/p2mguardctl', '--socket', self.host.control, 'watch', '--from', '1'],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        session = self.client.call('guard.begin', domain=1, wait=True, policy=QUICK)
        self.end(session)
        lines = []
        while not lines or 'session.gone' not in lines[-1]:
            lines.append(process.stdout.readline())
            self.assertTrue(lines[-1])
        self.assertRegex(lines[-1], r'^\d\d:\d\d:\d\d\.\d{3}  web +session\.gone .*\breason=ended\b.*\boutcome=failed\b')
        gated = next(line for line in lines if 'session.gated' in line)
        self.assertRegex(gated, r' target_kib=262144 ')
        self.host.stop_daemon()
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 3)


if __name__ == '__main__':
    unittest.main()
