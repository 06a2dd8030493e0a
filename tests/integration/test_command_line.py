# SPDX-License-Identifier: LGPL-2.1-or-later
"""How p2mguardctl reads and writes: tables, colours, JSON, errors that help, and completion by the shells themselves."""
import fcntl
import grp
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
import unittest

from fixture import BUILD, NOBODY, PATIENT
from test_ctl import SETTLE, CtlCase
from test_unannounced import libxl

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, '../..')
CTL = BUILD + '/p2mguardctl'
LONG = 'a-guest-with-quite-a-long-name-of-more-than-forty-letters'
HOSTILE = 'x\x1b[31m\u009b2J\u202e\u200b\\x41ü'  # colours, erases, writes backwards, hides, pretends to be escaped
QUOTED = 'it\'s $(touch ran) `touch ran`; "touch ran" & <!>'
GROUP = grp.getgrnam('games')
ESCAPE = '\x1b'
# Half a second may be too short where many tests run at once; what is offered then is nothing, and asked for again.
TRIES = 20


def terminal(columns, rows=60):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
    return master, slave


def read_some(master, timeout):
    """What a program has written to its terminal; nothing: it has gone, or is silent for `timeout` seconds."""
    if not select.select([master], [], [], timeout)[0]:
        return ''
    try:
        return os.read(master, 65536).decode()
    except OSError:
        return ''


class LineCase(CtlCase):
    def environment(self, **more):
        """A value of None takes the variable away."""
        environment = dict(os.environ, LC_ALL='C.UTF-8', TERM='xterm', NO_COLOR=None, COLUMNS=None,
                           PATH=BUILD + ':' + os.environ['PATH'])
        environment.update(more)
        return {key: value for key, value in environment.items() if value is not None}

    def ctl(self, *arguments, **environment):
        done = subprocess.run([CTL, '--socket', self.host.control, *arguments], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, env=self.environment(**environment), timeout=60)
        return done.returncode, done.stdout, done.stderr

    def on_terminal(self, *arguments, columns=80, **environment):
        master, slave = terminal(columns)
        with subprocess.Popen([CTL, '--socket', self.host.control, *arguments], stdin=slave, stdout=slave, stderr=slave,
                              env=self.environment(**environment)) as process:
            os.close(slave)
            text = ''
            while more := read_some(master, 60):
                text += more
        os.close(master)
        return text.replace('\r\n', '\n')

    def create(self, domid, name, **options):
        self.host.create(domid, name=name.encode().decode('latin-1'), **options)  # the fixture writes bytes

    def assert_refused(self, arguments, status, *texts):
        got, out, err = self.ctl(*arguments)
        self.assertEqual((got, out), (status, ''), arguments)
        for text in texts:
            self.assertIn(text, err)


class Tables(LineCase):
    def test_tables_fit_the_terminal(self):
        self.create(1, 'web')
        self.create(2, LONG)
        self.client.hold(1)
        self.client.hold(2)
        for command in ('list', 'domains'):
            for columns in (80, 60, 40):
                lines = self.on_terminal(command, columns=columns, NO_COLOR='1').splitlines()
                self.assertEqual(len(lines), 3, lines)
                self.assertLessEqual(max(map(len, lines)), max(columns, 50), lines)
                for heading in ('DOMID', 'NAME', 'STATE', 'SESSION'):
                    self.assertIn(heading, lines[0])
                self.assertRegex(lines[2], r' a-guest-wi[^ ]*… ')
                self.assertRegex(lines[1], r'\bweb +')
        self.assertLessEqual(max(map(len, self.on_terminal('list', NO_COLOR='1').splitlines())), 80)
        self.assertIn('HELD AFTER', self.on_terminal('list'))
        self.assertNotIn('HELD AFTER', self.on_terminal('list', columns=60))
        wide = self.on_terminal('list', columns=200)
        self.assertIn(LONG, wide)

    def test_columns_says_how_wide_it_is(self):
        self.create(1, LONG)
        self.assertIn(LONG, self.on_terminal('domains', COLUMNS='150'))
        self.assertLessEqual(max(map(len, self.on_terminal('domains', columns=200, COLUMNS='70').splitlines())), 70)
        self.assertIn('with~', self.on_terminal('domains', COLUMNS='65', LC_ALL='C'))

    def test_nothing_is_cut_in_a_pipe(self):
        self.create(1, LONG, target_kib=4096)
        self.create(22, 'db', target_kib=1048576)
        self.client.hold(22)
        for command in ('list', 'domains'):
            _, out, _ = self.ctl(command, COLUMNS='40')
            self.assertIn('SIZE', out)
        self.assertIn(LONG, out)
        rows = [line.split() for line in out.splitlines()]
        self.assertEqual([row[0] for row in rows], ['DOMID', '1', '22'])
        # Numbers end where their heading does.
        ends = [line.index(text) + len(text) for line, text in zip(out.splitlines(), ('SIZE', '4096 KiB', '1024.0 MiB'))]
        self.assertEqual(len(set(ends)), 1, out)

    def test_record_wraps_and_loses_nothing(self):
        self.create(1, LONG)
        text = self.on_terminal('domain', '1', columns=50, NO_COLOR='1')
        self.assertLessEqual(max(map(len, text.splitlines())), 50)
        self.assertIn(LONG, re.sub(r'\n +', '', text))
        self.assertIn('262144 (256.0 MiB)', text)

    def test_migrations(self):
        self.create(1, LONG)
        self.client.call('events.subscribe')
        self.assertIn('no migration has been seen', self.ctl('migrations')[1])
        program = self.host.folder + '/libxl-save-helper'
        shutil.copy(BUILD + '/imitated-helper', program)
        helper = subprocess.Popen([program, *libxl(1)], stdin=subprocess.DEVNULL)
        try:
            self.client.event('migration.seen')
            lines = self.on_terminal('migrations', NO_COLOR='1').splitlines()
            self.assertLessEqual(max(map(len, lines)), 80)
            self.assertRegex(lines[1], r'^ +1 a-guest-with\S*… .* proceed +unchanged$')
        finally:
            helper.send_signal(signal.SIGTERM)
            helper.wait()
        self.client.event('migration.ended')

    def test_colours(self):
        self.create(1, 'web')
        self.client.hold(1)
        green = ESCAPE + '[32mheld'
        self.assertIn(green, self.on_terminal('list'))
        self.assertIn(green, self.on_terminal('show', 'web'))
        self.assertIn(green, self.on_terminal('list', NO_COLOR=''))
        self.assertIn(ESCAPE + '[32mproceed', self.on_terminal('verdict', 'web'))
        for environment in ({'NO_COLOR': '1'}, {'TERM': 'dumb'}, {'TERM': None}):
            self.assertNotIn(ESCAPE, self.on_terminal('list', **environment))
        self.assertNotIn(ESCAPE, self.on_terminal('list', '--color=never'))
        self.assertIn(green, self.on_terminal('list', '--color=always', NO_COLOR='1'))
        self.assertNotIn(ESCAPE, self.ctl('list')[1])
        self.assertIn(green, self.ctl('--color', 'always', 'list')[1])
        self.assert_refused(['list', '--color', 'allways'], 2, "did you mean 'always'?")

    def assert_harmless(self, text):
        bad = [character for character in text
               if character != '\n' and (ord(character) < 32 or 127 <= ord(character) < 160 or ord(character) > 8000)]
        self.assertEqual(bad, [], repr(text))

    def test_hostile_names(self):
        self.create(1, HOSTILE)
        self.client.hold(1)
        shown = r'x\x1b[31m\xc2\x9b2J\xe2\x80\xae\xe2\x80\x8b\x5cx41ü'
        for arguments in (['list'], ['domains'], ['show', '1'], ['domain', '1']):
            text = self.on_terminal(*arguments, columns=200, NO_COLOR='1')
            self.assertIn(shown, text)
            self.assert_harmless(text)
            out = self.ctl(*arguments, '--json')[1]
            self.assertIn(json.dumps(HOSTILE)[1:-1].lower(), json.dumps(json.loads(out)).lower())
            self.assert_harmless(self.on_terminal(*arguments, '--json', columns=200))
        _, out, err = self.ctl('begin', HOSTILE)
        self.assert_harmless(out + err)
        self.assertIn(shown[:20], self.ctl('show', HOSTILE + 'y')[2])
        watch = self.start('watch', '--from', '1')
        for line in watch.stdout:
            if 'session.held' in line:
                break
        self.assertIn(r'\x1b', line)
        self.assert_harmless(line)
        watch.kill()
        watch.communicate()


class Json(LineCase):
    with open(SOURCE + '/man/p2mguardctl.8', encoding='utf-8') as page:
        documented = set(re.findall(r'"(\w+)"', page.read()))
    with open(SOURCE + '/protocol/CONTROL.md', encoding='utf-8') as page:
        records = set(re.findall(r'[`"](\w+)[`"]', page.read()))

    def lines(self, *arguments, status=0):
        got, out, err = self.ctl('--json', *arguments)
        self.assertEqual(got, status, err)
        return [json.loads(line) for line in out.splitlines()]

    def assert_record(self, record, *keys):
        """One of the daemon's, as CONTROL.md has it."""
        for key in keys:
            self.assertIn(key, record)
        self.assertEqual(set(record) - self.records, set())

    def assert_documented(self, value):
        """One of the command's own, as the page has it."""
        self.assertEqual(set(value) - self.documented, set())

    def test_every_command(self):
        self.create(1, 'web')
        record, = self.lines('begin', '--detached', *SETTLE, 'web')
        self.assert_record(record, 'session', 'state', 'policy', 'pin_kib')
        for arguments in (['show', 'web'], ['retry', 'web']):
            one, = self.lines(*arguments)
            self.assert_record(one, 'session', 'state', 'policy')
            self.assertEqual(one['session'], record['session'])
        listed, = self.lines('list')
        self.assertEqual([one['session'] for one in listed], [record['session']])
        self.assert_record(listed[0], 'session', 'tot_kib')
        verdict, = self.lines('verdict', 'web')
        self.assert_record(verdict, 'verdict', 'reason', 'baseline', 'now')
        for arguments in (['domains'], ['domain', 'web'], ['info'], ['migrations']):
            value, = self.lines(*arguments)
            self.assert_record(value[0] if arguments == ['domains'] else value)
        ended, = self.lines('end', 'web', 'failed')
        self.assertEqual((ended['state'], ended['outcome']), ('gone', 'failed'))
        self.assert_record(ended)
        self.lines('begin', '--detached', *SETTLE, 'web')
        let_go, = self.lines('thaw', '--all')
        self.assertEqual([one['outcome'] for one in let_go], ['cancelled'])
        self.assert_record(let_go[0])
        summary, = self.lines('migrate', *SETTLE, 'web', '--', 'true')
        self.assert_documented(summary)
        self.assert_documented(summary['attempts'][0])
        self.assertEqual(summary['outcome'], 'migrated')

    def test_begin_tells_of_its_end(self):
        self.create(1, 'web')
        process = self.start('--json', 'begin', *SETTLE, 'web')
        held = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        over = json.loads(out)
        self.assertEqual((held['state'], over['state'], over['session']), ('held', 'gone', held['session']))

    def assert_error(self, status, *arguments, code=None, hint=None):
        *_, line = self.lines(*arguments, status=status)
        self.assertEqual(set(line), {'error'})
        self.assertEqual(set(line['error']), {'code', 'message', 'data', 'hint'})
        self.assertEqual(line['error']['code'], code)
        if code is None:
            self.assertIsNone(line['error']['data'])
        else:
            self.assertTrue(line['error']['data']['what'])
        if hint:
            self.assertIn(hint, line['error']['hint'])
        self.assert_documented(line)
        self.assert_documented(line['error'])

    def test_errors(self):
        self.create(1, 'web')
        self.assert_error(1, 'domain', 'wbe', code=-32001, hint="did you mean 'web'?")
        self.assert_error(1, 'show', 'web', code=-32002, hint='not under guard')
        self.assert_error(2, 'shwo', 'web', hint='p2mguardctl --help')
        self.assert_error(2, 'begin', '--detatched', 'web', hint='p2mguardctl begin --help')
        self.assert_error(1, 'thaw', 'web', code=-32002)
        self.host.stop_daemon()
        self.assert_error(3, 'list', hint='systemctl start p2mguardd')


class Errors(LineCase):
    configuration = PATIENT + f'socket_mode = 0660\nsocket_group = {GROUP.gr_name}\n'

    def test_what_may_have_been_meant(self):
        self.create(1, 'web')
        self.create(2, 'database')
        session = self.client.hold(1)['session']
        for arguments, status, texts in (
                (['lits'], 2, ["'lits' is no command", "did you mean 'list'?"]),
                (['help', 'bgin'], 2, ["did you mean 'begin'?"]),
                (['begin', '--detatched', 'web'], 2, ["no option '--detatched'", "did you mean '--detached'?"]),
                (['--jsno', 'list'], 2, ["did you mean '--json'?", 'before the command']),
                (['begin', '--policy', 'atempts=3', 'web'], 2, ["'atempts'", "did you mean 'attempts'?"]),
                (['begin', '--policy', 'require=setled', 'web'], 2, ["did you mean 'settled'?"]),
                (['begin', '--policy', 'attempts=0', 'web'], 2, ['a number from 1 to 100']),
                (['begin', '--require', 'agnet', 'web'], 2, ['gate|settled|agent', "did you mean 'agent'?"]),
                (['end', 'web', 'complete'], 2, ['completed|failed|cancelled', "did you mean 'completed'?"]),
                (['verdict', '--phase', 'fnal', 'web'], 2, ["did you mean 'final'?"]),
                (['domain', 'wbe'], 1, ["'wbe' is not known", "did you mean 'web'?"]),
                (['begin', 'databse'], 1, ["did you mean 'database'?"]),
                (['migrate', 'wbe', '--', 'true'], 1, ["did you mean 'web'?"]),
                (['domain', 'entirely-different'], 1, ['p2mguardctl domains lists']),
                (['show', 'wbe'], 1, ["session 'wbe' is not known", "did you mean 'web'?"]),
                (['show', session[:-1]], 1, [f"did you mean '{session}'?"]),
                (['show', 'database'], 1, ["the domain 'database' is not under guard"]),
                (['verdict', 'entirely-different'], 1, ['p2mguardctl list shows'])):
            with self.subTest(arguments=arguments):
                self.assert_refused(arguments, status, *texts)

    def test_numbers_of_words(self):
        for arguments, text in ((['show'], 'expected SESSION'), (['show', 'a', 'b'], "'b' is too much, expected SESSION"),
                                (['list', 'x'], "'x' is too much, expected nothing more"),
                                (['end', 'web'], 'expected SESSION completed|failed|cancelled'),
                                (['begin'], 'expected one DOMAIN'), (['verdict'], 'expected one SESSION'),
                                (['watch', 'x'], "'x' is too much"), (['show', '--socket'], '--socket needs PATH'),
                                (['list', '--json=yes'], '--json takes no value'),
                                (['begin', '-d', 'web'], "no option '-d'"), (['--', 'list'], 'expected a command')):
            with self.subTest(arguments=arguments):
                self.assert_refused(arguments, 2, text, '--help')

    def test_options_may_stand_anywhere(self):
        self.create(1, 'web')
        status, out, err = self.ctl('begin', 'web', '--detached', '--json', *SETTLE)
        self.assertEqual((status, err), (0, ''))
        self.assertEqual(json.loads(out)['hold'], 'detached')
        self.assertEqual(self.ctl('verdict', 'web', '--phase=precopy')[0], 0)
        self.ctl('thaw', '--al')
        # What is behind "--" is another program's.
        status, out, err = self.ctl('migrate', 'web', *SETTLE, '--', 'echo', '--json', '--attempts', '--help')
        self.assertEqual((status, out), (0, '--json --attempts --help\n'), err)

    def test_help_for_each_command(self):
        with open(SOURCE + '/man/p2mguardctl.8', encoding='utf-8') as file:
            page = file.read()
        status, out, _ = self.ctl('help')
        self.assertEqual((status, out), self.ctl('--help')[:2])
        self.assertEqual((status, out), self.ctl('-h')[:2])
        commands = re.findall(r'^  (\w+)', out.partition('Commands:\n')[2].partition('\nOptions')[0], re.M)
        self.assertIn('migrate', commands)
        for command in commands:
            status, text, err = self.ctl(command, '--help')
            self.assertEqual((status, err), (0, ''))
            self.assertEqual(text, self.ctl('help', command)[1])
            self.assertIn(f'usage: p2mguardctl {command}', text)
            for line in re.findall(r'^  --.*', text, re.M):  # each option is explained
                self.assertRegex(line, r'^  --\S+( \S+)?  +\S', command)
            self.assertTrue(re.search(rf'^\.(It Cm|Ss) {command}\b', page, re.M), command)
        self.assertIn('1 to 100', self.ctl('help', 'migrate')[1])

    @unittest.skipIf(os.geteuid() != 0, 'becoming another user takes root')
    def test_who_may_not_is_told_who_may(self):
        os.chmod(self.host.folder, 0o755)
        program = shutil.copy(CTL, self.host.folder)  # the build may be where others cannot read
        def as_nobody(*arguments):
            done = subprocess.run([program, '--socket', self.host.control, *arguments], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, cwd='/', user=NOBODY, group=NOBODY, extra_groups=[])
            self.assertIn(f"members of the group '{GROUP.gr_name}' (usermod -aG {GROUP.gr_name} USER)", done.stderr)
            return done.returncode, done.stderr
        status, err = as_nobody('list')
        self.assertEqual(status, 1)
        self.assertIn('Permission denied', err)
        os.chmod(self.host.control, 0o666)
        status, err = as_nobody('begin', '1')
        self.assertEqual(status, 1)
        self.assertIn('may change', err)

    def test_without_a_daemon(self):
        self.host.stop_daemon()
        self.assert_refused(['list'], 3, 'is p2mguardd running?', 'systemctl start p2mguardd')
        # What is wrong with the command line does not need one.
        self.assert_refused(['begin', '--policy', 'attempts=x', '1'], 2, 'a number from')
        self.assertEqual(self.ctl('help', 'list')[0], 0)


class Completion(LineCase):
    def offered(self, *words):
        """What could be the last of these, and how that is meant."""
        done = subprocess.run([CTL, '__complete', '--socket', self.host.control, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, env=self.environment(), timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        how, *lines = done.stdout.splitlines() or ['']
        return how, [line.split('\t')[0] for line in lines]

    def test_words(self):
        self.create(1, 'web')
        self.create(2, HOSTILE)
        self.create(3, '-rf')
        session = self.client.hold(1)['session']
        for words, how, offered in (
                (['migr'], 'words', ['migrate', 'migrations']), (['show', ''], 'words', ['web', session]),
                (['domain', ''], 'words', ['web', '2', '3']), (['domain', 'w'], 'words', ['web']),
                (['end', 'web', ''], 'words', ['completed', 'failed', 'cancelled']),
                (['verdict', '--phase', ''], 'words', ['precopy', 'final']),
                (['verdict', '--phase=f'], 'words', ['--phase=final']),
                (['begin', '--det'], 'words', ['--detached']), (['--soc'], 'words', ['--socket']),
                (['begin', '--policy', 'atte'], 'nospace', ['attempts=']),
                (['begin', '--policy', 'require=g'], 'words', ['require=gate']),
                (['--color', ''], 'words', ['auto', 'always', 'never']), (['--socket', ''], 'files', []),
                (['help', 'beg'], 'words', ['begin']),
                (['migrate', 'web', ''], 'words', ['--']), (['migrate', 'web', '--', 'xl', ''], 'command', [])):
            with self.subTest(words=words):
                for _ in range(TRIES):
                    if (got := self.offered(*words)) != ('', []):
                        break
                self.assertEqual(got, (how, offered))
        for words in (['help', 'bre'], ['list', ''], ['unknown', '']):
            self.assertEqual(self.offered(*words), ('', []))

    def test_nobody_is_waited_for(self):
        self.host.daemon.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            self.assertEqual(self.offered('show', ''), ('', []))
            self.assertLess(time.monotonic() - begun, 20)  # the daemon would not answer for as long as it is stopped
        finally:
            self.host.daemon.send_signal(signal.SIGCONT)
        self.host.stop_daemon()
        self.assertEqual(self.offered('show', ''), ('', []))
        self.assertEqual(self.offered('sho'), ('words', ['show']))

    def in_shell(self, command, setup, lines):
        """Runs a shell on a terminal; of each line a program is to get these words once it was completed."""
        if not shutil.which(command[0]):
            self.skipTest(f'{command[0]} is not installed')
        master, slave = terminal(400)
        folder = self.host.folder
        with open(folder + '/told', 'w', encoding='ascii') as told:
            told.write('#!/bin/sh\nprintf "%s\\0" "$@" >told.new && mv told.new told.words\n')
        os.chmod(folder + '/told', 0o755)
        # The program completes under its own name, and the line is then run with one that writes down its words.
        setup = f'{setup}\np2mguardctl() {{ if [[ $1 == __complete ]]; then command p2mguardctl "$@"; else ./told "$@"; fi; }}\n'
        shell = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
                                 env=self.environment(HOME=folder, HISTFILE=None),
                                 preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        try:
            self.say(master, setup + 'echo READ""Y\n', 'READY')
            for line, expected in lines:
                for _ in range(TRIES):
                    if (got := self.completed(master, line)) == expected:
                        break
                self.assertEqual(got, expected, line)
        finally:
            shell.kill()
            shell.wait()
            os.close(master)

    def say(self, master, text, answer):
        os.write(master, text.encode())
        got = ''
        while answer not in got:
            more = read_some(master, 120)
            self.assertTrue(more, f'no {answer} in {got}')
            got += more

    def completed(self, master, line):
        words = self.host.folder + '/told.words'
        if os.path.exists(words):
            os.unlink(words)
        os.write(master, f'p2mguardctl {line}\t'.encode())
        self.say(master, '\recho DON""E\r', 'DONE')
        with open(words, encoding='utf-8') as file:
            return file.read().split('\0')[:-1]

    def assert_completes(self, command, setup):
        self.create(1, 'web')
        self.create(2, QUOTED)
        session = self.client.hold(1)['session']
        socket = f'--socket {self.host.control}'
        lines = (('sho', ['show']), (f'{socket} show w', ['--socket', self.host.control, 'show', 'web']),
                 (f'{socket} show {session[:4]}', ['--socket', self.host.control, 'show', session]),
                 (f'{socket} domain it', ['--socket', self.host.control, 'domain', QUOTED]),
                 (f'{socket} domain "w', ['--socket', self.host.control, 'domain', 'web']),
                 ('begin --policy atte', ['begin', '--policy', 'attempts=']),
                 ('begin --policy require=ga', ['begin', '--policy', 'require=gate']),
                 ('begin --require=sett', ['begin', '--require=settled']),
                 ('end x canc', ['end', 'x', 'cancelled']),
                 ('--socket ./tol', ['--socket', './told']),
                 ('migrate web -- ./tol', ['migrate', 'web', '--', './told']))
        self.in_shell(command, setup, lines)
        self.assertFalse(os.path.exists(self.mark('ran')))

    def test_bash(self):
        library = '/usr/share/bash-completion/bash_completion'
        if not os.path.exists(library):
            self.skipTest('bash-completion is not installed')
        self.assert_completes(['bash', '--norc', '--noprofile', '-i'],
                              f'set +H; source {library}; source {SOURCE}/client/completion/bash/p2mguardctl')

    def test_zsh(self):
        self.assert_completes(['zsh', '-f', '-i'], f'setopt nobanghist; fpath=({SOURCE}/client/completion/zsh $fpath); '
                              'autoload -U compinit; compinit -u -D')


if __name__ == '__main__':
    unittest.main()
