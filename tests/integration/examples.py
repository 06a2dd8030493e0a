# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every example of every manual page is run, or checked as what it is: "run examples", which is examples.test.

The real xenstored, the daemon with the imitated hypervisor, and four guests: web, db, mail and db-1, domains 7 to 10.
Shell examples run in mount namespaces in which what is built is installed, so that paths are as they stand in the pages
and nothing is changed on this machine. What needs Xen, systemd or another host is done by a stand-in
(imitation/stand-in); the output says of which examples that is so. manual.py says how a page tells what is to be done
with an example: the kinds are the functions here that are named do_KIND.
"""
import collections
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import unittest

import manual
from fixture import BUILD, SANITIZED, Client, Host, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
STAND_IN = os.path.join(HERE, '../imitation/stand-in')
# Sessions that settle quickly, on a machine that stands still now and then; who is not root may read.
CONFIGURATION = ('[daemon]\nmax_gap_ms = 10000\nsocket_mode = 0666\n'
                 '[policy]\nquiet_ms = 50\nsettle_ms = 100\nretry_backoff_ms = 50\n')
GUESTS = {7: 'web', 8: 'db', 9: 'mail', 10: 'db-1'}
PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
# Programs that the examples and their checks use, and nothing else here does, and their packages in Debian.
NEEDED = {'apparmor_parser': 'apparmor', 'jq': 'jq', 'mandoc': 'mandoc', 'shellcheck': 'shellcheck', 'socat': 'socat',
          'systemd-analyze': 'systemd', 'visudo': 'sudo', 'xenstore-ls': 'xenstore-utils'}
PLACES = {'p2mguardd': 'sbin', 'p2mguard-agent': 'sbin', 'p2mguardctl': 'bin'}
LIMIT_S = 120  # on a machine that others use as well
WIDTH = 78
# The namespace sees copies of the machine's folders. Its arguments: where they are, what is installed, /run/p2mguard.
NAMESPACE = '''
mount -t tmpfs tmpfs "$1"
for name in etc usr var; do
	mkdir "$1/$name" "$1/$name.work"
	mount -t overlay overlay -o "lowerdir=$2/$name:/$name,upperdir=$1/$name,workdir=$1/$name.work" "/$name"
done
mount -t tmpfs tmpfs /run
ln -s "$3" /run/p2mguard
echo ready
read -r _
'''
C_FLAGS = ['-Wall', '-Wextra', '-Werror', *(['-fsanitize=address,undefined'] if SANITIZED else [])]
# What is around an example that is a part of a migration engine. It is asked as libxenguest asks it.
ENGINE = '''
#include <stdint.h>
#include <stdio.h>
#include <xenctrl.h>
#include <xenguest.h>
#include <p2mguard.h>
int main(void)
{
    struct p2mguard *guard;
    char session[P2MGUARD_SESSION_SIZE];
    struct save_callbacks callbacks = {0};
    struct precopy_stats stats = {.iteration = 1, .dirty_count = 1000};
    if (p2mguard_connect(&guard, NULL) < 0 || p2mguard_begin(guard, "web", NULL, P2MGUARD_WAIT, session) < 0)
        return 1;
%s
    int answer = callbacks.precopy_policy(stats, callbacks.data);
    p2mguard_end(guard, session, P2MGUARD_CANCELLED, NULL);
    p2mguard_close(guard);
    return answer == XGS_POLICY_ABORT;
}
'''


def run(*command, **options):
    return subprocess.run(command, check=False, text=True, capture_output=True, timeout=60, **options)


def why_not():
    """What keeps the examples from being run on this machine."""
    missing = [package for program, package in NEEDED.items() if not shutil.which(program, path=PATH)]
    if missing:
        return 'programs are missing; on Debian: apt install ' + ' '.join(missing)
    if run('unshare', '--mount', 'sh', '-c', 'mount -t tmpfs tmpfs /run').returncode:
        return 'mounts of its own are not allowed here'
    return None


def install():
    """A folder with what the build installs, where the pages say; of programs that need Xen the imitated ones."""
    folder = tempfile.mkdtemp(prefix='p2mg-installed-')
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
    made = run('make', '-s', '-C', BUILD, 'install-data', f'DESTDIR={folder}', 'prefix=/usr', 'sysconfdir=/etc',
               'localstatedir=/var', env=environment)
    if made.returncode:
        shutil.rmtree(folder)
        raise AssertionError('make install-data failed:\n' + made.stderr)
    for place in ('var', 'usr/bin', 'usr/sbin', 'usr/libexec/p2mguard'):
        os.makedirs(f'{folder}/{place}', exist_ok=True)
    for name in sorted(os.listdir(BUILD)):
        path = f'{BUILD}/{name}'
        if os.path.isfile(path) and os.access(path, os.X_OK):
            name = name.removesuffix('-imitated')
            link = f'{folder}/usr/{PLACES.get(name, "libexec/p2mguard")}/{name}'
            if os.path.lexists(link):
                os.unlink(link)  # the imitated one comes after the other
            os.symlink(path, link)
    return folder


def like(text):
    """A line without what is different each time: numbers, names of sessions, blanks that align."""
    text = re.sub(r'\b\d+-[0-9a-f]{8}\b', 'SESSION', text)
    text = re.sub(r'\b[0-9a-f]{16}\b', 'DIGEST', text)
    return ' '.join(re.sub(r'\b\d+(\.\d+)?', '0', text).split())


def shown(expected, actual):
    """Is that what an example shows? Its lines "..." stand for any."""
    pattern = ''.join('(?:.*\n)*' if line.strip() == '...' else re.escape(like(line)) + '\n' for line in expected)
    return re.fullmatch(pattern, ''.join(like(line) + '\n' for line in actual))


def figure(where, value):
    return not where.endswith('.code') and not isinstance(value, bool)


def same_shape(shown_value, value, where='answer'):
    """Raises unless all that is shown is there: members, types, words. Figures may differ, and members be left out."""
    if isinstance(shown_value, dict):
        for name, member in shown_value.items():
            if not isinstance(value, dict) or name not in value:
                raise AssertionError(f'{where} has no member "{name}": {value}')
            same_shape(member, value[name], f'{where}.{name}')
    elif isinstance(shown_value, list):
        if not isinstance(value, list) or len(shown_value) > len(value):
            raise AssertionError(f'{where} is {value}, shown is {shown_value}')
        for index, element in enumerate(shown_value):
            same_shape(element, value[index], f'{where}[{index}]')
    elif isinstance(shown_value, str) and isinstance(value, str):
        if like(shown_value) != like(value):
            raise AssertionError(f'{where} is "{value}", shown is "{shown_value}"')
    elif type(shown_value) is not type(value) or not figure(where, value) and shown_value != value:
        raise AssertionError(f'{where} is {value!r}, shown is {shown_value!r}')


def members(value):
    """The names of all members of a JSON value, whatever is in what."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set(value if isinstance(value, dict) else ()).union(*map(members, inner))


def lines_of(text, *prompts):
    """[prompt, its text, lines up to the next prompt]"""
    found = []
    for line in text.splitlines():
        prompt = next((prompt for prompt in prompts if line.startswith(prompt)), None)
        if prompt:
            found.append([prompt, line[len(prompt):].strip(), []])
        elif found and found[-1][1].endswith('\\'):
            found[-1][1] += '\n' + line
        elif found:
            found[-1][2].append(line)
        else:
            raise AssertionError(f'begins with none of {prompts}: {line}')
    return found


class Stage:
    """Where the examples of one page are run, one after the other."""

    def __init__(self, installed, page):
        self.page, self.tally = page, collections.Counter()
        self.host = Host(CONFIGURATION)
        for domid, name in GUESTS.items():
            self.host.create(domid, name=name, generation=0)
        folder = self.host.folder
        os.chmod(folder, 0o755)
        self.bin, self.work, self.log = folder + '/bin', folder + '/work', folder + '/stand-ins'
        for path in (self.bin, self.work, folder + '/copies'):
            os.mkdir(path)
        with open(STAND_IN, encoding='utf-8') as file:
            for name in re.findall(r"^    '([\w-]+)': ", file.read(), re.MULTILINE):
                os.symlink(STAND_IN, f'{self.bin}/{name}')
        self.environment = dict(
            self.host.environment, PATH=f'{self.bin}:{self.work}:{PATH}', STAND_IN_LOG=self.log,
            COLUMNS='80', TERM='xterm', CPATH=installed + '/usr/include',
            LIBRARY_PATH=BUILD + '/.libs', LD_LIBRARY_PATH=BUILD + '/.libs',
            **{f'P2MGUARD_{name.removesuffix("-imitated").upper()}': f'{BUILD}/{name}'
               for name in os.listdir(BUILD) if name.endswith('-imitated')},  # for p2mguardctl
            PKG_CONFIG_PATH=run('find', installed, '-name', 'pkgconfig').stdout.strip())
        for name in manual.programs(page):
            self.put(name, manual.programs(page)[name])
        command = ['unshare', '--mount', 'sh', '-ec', NAMESPACE, 'sh', folder + '/copies', installed, folder]
        self.keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.keeper.stdout.readline() != 'ready\n':
            raise AssertionError('there is no mount namespace to be had')

    def close(self):
        self.keeper.kill()
        self.keeper.wait()
        self.keeper.stdin.close()
        self.keeper.stdout.close()
        self.host.stop()

    def put(self, name, text):
        """A program that all of the page's examples find."""
        with open(f'{self.work}/{name}', 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(file.name, 0o755)

    def inside(self, script):
        return ['nsenter', f'--mount=/proc/{self.keeper.pid}/ns/mnt', 'sh', '-c', f'cd {self.work}; . ./script', script]

    def start(self, script, **options):
        self.put('script', 'set -e\n' + script)
        return subprocess.Popen(self.inside(script), env=self.environment, **{'stdin': subprocess.DEVNULL, **options})

    def shell(self, script, status=0):
        """What it writes to standard output."""
        process = self.start(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise AssertionError(f'goes on for more than {LIMIT_S} s; if it is to, say "example: follow"') from None
        if process.returncode != status:
            raise AssertionError(f'exit status {process.returncode}, expected {status}:\n{out}{err}')
        return out

    def imitated(self):
        """The programs that had stand-ins since the last call."""
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding='utf-8') as file:
            names = sorted({line.split()[0] for line in file})
        os.unlink(self.log)
        return names

    def prepare(self, command):
        if command == 'no daemon':
            self.host.kill_daemon()  # one that is stopped leaves nothing to be put back
        else:
            self.shell(command)

    def tidy(self):
        if self.host.daemon.poll() is not None:
            self.host.start_daemon()

    # ---- kinds ----

    def do_run(self, example):
        """run [STATUS]: by the shell."""
        self.shell(example.text, int(example.words or 0))

    def do_follow(self, example):
        """follow: goes on until it is told to end, on a terminal, and has to write something until then."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
        process = self.start(example.text, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        said = bytearray()
        client = self.host.client()

        def writes():
            client.call('guard.end', session=client.hold('mail', hold='detached')['session'], outcome='cancelled')
            return select.select([ours], [], [], 0.1)[0]

        def has_ended():
            with contextlib.suppress(OSError):  # nobody has the other side any more
                while select.select([ours], [], [], 0)[0]:
                    said.extend(os.read(ours, 65536))
            return process.poll() is not None
        try:
            wait_until(writes, LIMIT_S, 'something written')
            os.killpg(process.pid, signal.SIGTERM)
            wait_until(has_ended, LIMIT_S, 'its end')
        finally:
            os.close(ours)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode in (2, 126, 127):
            raise AssertionError(f'exit status {process.returncode}: {said.decode(errors="replace")}')

    def do_console(self, example):
        """console: commands after "# " or "$ ", each with what it writes, in which figures may be others."""
        for _, command, expected in lines_of(example.text, '# ', '$ '):
            actual = self.shell(command + ' 2>&1').splitlines()
            if not shown(expected, actual):
                raise AssertionError(f'{command}\n' + '\n'.join(['--- shown:', *expected, '--- written:', *actual]))

    def do_prints(self, example):
        """prints [STATUS]: COMMAND. What the command writes, in which figures may be others and lines are broken."""
        actual = self.shell(f'exec 2>&1\n{example.command}', int(example.words or 0))
        if not shown([' '.join(example.text.split())], [' '.join(actual.split())]):
            raise AssertionError(f'{example.command} writes:\n{actual}')

    def do_members(self, example):
        """members [STATUS]: COMMAND. The members, in quotes, of what the command writes as one line of JSON."""
        lines = self.shell(f'exec 2>&1\n{example.command}', int(example.words or 0)).splitlines()
        shown_names = set(re.findall(r'"(\w+)"', example.text))
        names = members(json.loads([line for line in lines if line.startswith(('{', '['))][-1]))
        if not shown_names <= names:
            raise AssertionError(f'{example.command} has no {sorted(shown_names - names)}: {sorted(names)}')

    def do_program(self, example):
        """program NAME: COMMAND. The program is there for all of the page's examples; the command is run."""
        interpreter = example.text.partition('\n')[0].removeprefix('#!')
        if interpreter.endswith('/sh'):
            checked = run('shellcheck', '-e', 'SC2317', '-', input=example.text)
            if checked.returncode:
                raise AssertionError(checked.stdout)
        self.shell(example.command)

    def do_c(self, example):
        """c NAME: COMMAND. A whole program is built as p2mguard(3) says, and the command run."""
        self.build(example.words, example.text, '-std=c11', '-pedantic')
        self.shell(example.command)

    def do_engine(self, example):
        """engine: a part of a program in C, see ENGINE."""
        self.build('engine', ENGINE % example.text)  # in the dialect of Xen's headers
        self.shell('./engine')

    def build(self, name, text, *flags):
        self.put(name + '.c', text)
        self.shell(f'cc {" ".join([*C_FLAGS, *flags])} -o {name} {name}.c $(pkg-config --cflags --libs p2mguard)')

    def do_json(self, example):
        """json: a conversation on one connection. "-->" is sent; what comes has to look as after "<--". Events that
        are not shown may come between; a session has the name that the daemon gives it."""
        client, names, come = Client(self.host.control), {}, []
        try:
            for arrow, text, more in lines_of(example.text, '-->', '<--'):
                text = '\n'.join([text, *more])
                for name, real in names.items():
                    text = text.replace(name, real)
                message = json.loads(text)
                if arrow == '-->':
                    client.socket.sendall(json.dumps(message).encode() + b'\n')
                else:
                    self.answer(client, message, names, come)
        finally:
            client.close()

    @staticmethod
    def answer(client, message, names, come):
        def kind(message):
            return message['params']['type'] if 'method' in message else message['id']
        while not (fitting := [actual for actual in come if kind(actual) == kind(message)]):
            come.append(client.line(LIMIT_S))
        actual = fitting[0]
        come.remove(actual)
        for name in ('result', 'params'):
            part, real = message.get(name, {}), actual.get(name, {})
            if 'session' in part and 'session' in real:
                names[part['session']] = real['session']
        same_shape(message, actual)

    def do_log(self, example):
        """log: lines that the daemon writes to its log."""
        with open(self.host.log_path, encoding='utf-8') as file:
            written = {like(line[line.find(word):]) for line in file for word in ['audit: '] if word in line}
        for line in example.text.splitlines():
            if like(line) not in written:
                raise AssertionError('not in the log: ' + line + '\n' + self.host.log_tail())

    def do_conf(self, example):
        """conf: a configuration that the daemon starts with."""
        self.host.stop_daemon()
        self.host.configuration = example.text
        try:
            self.host.start_daemon()
            self.host.stop_daemon()
        finally:
            self.host.configuration = CONFIGURATION  # tidy() starts it with that

    def do_unit(self, example):
        """unit NAME: a drop-in for that unit, which systemd knows all lines of."""
        folder = self.host.folder + '/units'
        os.makedirs(f'{folder}/{example.words}.d', exist_ok=True)
        with open(f'{folder}/{example.words}.d/example.conf', 'w', encoding='utf-8') as file:
            file.write(example.text)
        if not example.words.startswith('p2mguard'):  # another package's: any will do
            with open(f'{folder}/{example.words}', 'w', encoding='utf-8') as file:
                file.write('[Service]\nExecStart=/bin/true\n')
        out = self.shell(f'SYSTEMD_UNIT_PATH={folder}: systemd-analyze --man=no verify {example.words} 2>&1 || :')
        said = [line for line in out.splitlines() if 'example.conf' in line]
        if said:
            raise AssertionError('\n'.join(said))

    def do_promql(self, example):
        """promql: a question to Prometheus."""
        rule = {'groups': [{'name': 'example', 'rules': [{'record': 'example', 'expr': example.text}]}]}
        self.put('rules.yml', json.dumps(rule))  # which is YAML as well
        self.shell('promtool check rules rules.yml')

    def do_sudoers(self, example):
        """sudoers: for sudo's configuration."""
        self.put('sudoers', example.text)
        self.shell('chmod 440 sudoers; visudo -cf sudoers')

    def do_apparmor(self, example):
        """apparmor: a rule of a profile."""
        self.put('profile', 'profile example {\n' + example.text + '}\n')
        self.shell('PATH=/usr/sbin:/sbin; apparmor_parser -QK profile')  # the real one

    def do_keys(self, example):
        """keys: another program's configuration, KEY=PATH, where the path's program is one of the page's."""
        for line in example.text.splitlines():
            key, _, path = line.partition('=')
            if not re.fullmatch(r'[\w-]+', key) or os.path.basename(path) not in manual.programs(self.page):
                raise AssertionError(f'expected KEY=PATH of one of {sorted(manual.programs(self.page))}: {line}')


KINDS = {name.removeprefix('do_'): function for name, function in vars(Stage).items() if name.startswith('do_')}
CHECKED = {'conf', 'unit', 'promql', 'sudoers', 'apparmor', 'keys'}


class Examples(unittest.TestCase):
    """One test for each page; they are made below."""

    @classmethod
    def setUpClass(cls):
        cls.tally = collections.Counter()
        cls.why_not = why_not()
        if cls.why_not:
            return
        cls.installed = install()
        cls.addClassCleanup(shutil.rmtree, cls.installed)
        tally = cls.tally
        cls.addClassCleanup(lambda: print('# examples:', ', '.join(f'{count} {how}' for how, count in tally.items())))

    def setUp(self):
        if self.why_not:
            self.skipTest(self.why_not)

    def run_page(self, page):
        stage = Stage(self.installed, page)
        self.addCleanup(stage.close)
        self.host = stage.host  # whose log is shown when it fails
        for example in manual.examples(page):
            with self.subTest(example=str(example)):
                self.assertIn(example.kind, KINDS, f'{example}: no such kind of example')
                how, imitated = self.run_example(stage, example)
                self.tally[how] += 1
                print(f'# {example} {example.kind}: {how}', *imitated, flush=True)

    def run_example(self, stage, example):
        """How it was run, and what was imitated for it."""
        if example.kind not in KINDS:
            self.fail(f'{example}: no such kind of example: {example.kind}; expected one of {", ".join(KINDS)}')
        try:
            for command in example.given:
                stage.prepare(command)
            stage.imitated()
            KINDS[example.kind](stage, example)
        except (AssertionError, ValueError, OSError) as caught:
            error = caught
        else:
            imitated = stage.imitated()
            return 'checked' if example.kind in CHECKED else 'with an imitation' if imitated else 'for real', imitated
        finally:
            stage.tidy()
        self.fail(f'{example} ({example.kind}): {error}\n{example.text}')  # without the way that the error has come


@unittest.skipUnless(shutil.which('mandoc'), 'mandoc is missing; on Debian: apt install mandoc')
class Pages(unittest.TestCase):
    def test_pages_are_sound(self):
        for page in manual.pages():
            self.assertEqual(run('mandoc', '-T', 'lint', '-W', 'warning', page).stdout, '')

    def test_no_line_is_wider_than_a_terminal(self):
        for page in manual.pages():
            lines = run('mandoc', '-T', 'ascii', '-O', f'width={WIDTH}', page).stdout
            lines = re.sub('.\b', '', lines).splitlines()
            self.assertEqual([line for line in lines if len(line) > WIDTH], [], page)

    def test_examples_are_what_a_reader_sees(self):
        for page in manual.pages():
            text = re.sub('.\b', '', run('mandoc', '-T', 'ascii', '-O', f'width={WIDTH}', page).stdout)
            text = {' '.join(line.split()) for line in text.splitlines()}
            for example in manual.examples(page):
                missing = [line for line in example.text.splitlines() if ' '.join(line.split()) not in text]
                self.assertEqual(missing, [], example)

    def test_references_lead_somewhere(self):
        names = {os.path.basename(page) for page in manual.pages()}
        for page in manual.pages():
            ours = {f'{name}.{section}' for name, section in manual.references(page) if name.startswith('p2mguard')}
            self.assertEqual(ours - names, set(), page)

    def assert_named(self, page, words, what):
        text = re.sub('[ ,()]', '\n', manual.source(f'{manual.FOLDER}/{page}'))
        missing = [word for word in words if word not in text.splitlines()]
        self.assertEqual(missing, [], f'{what} that {page} does not name')

    def test_protocol_is_named_as_a_whole(self):
        with open(manual.FOLDER + '/../protocol/openrpc.json', encoding='utf-8') as file:
            document = json.load(file)
        components = document['components']
        for what, words in (('methods', [method['name'] for method in document['methods']]),
                            ('events', [event['type'] for event in document['x-events']]),
                            ('reasons', components['schemas']['Reason']['enum']),
                            ('errors', [str(error['code']) for error in components['errors'].values()])):
            self.assert_named('p2mguard-control.7', words, what)

    def test_library_is_named_as_a_whole(self):
        with open(manual.FOLDER + '/../client/p2mguard.map', encoding='utf-8') as file:
            functions = re.findall(r'\bp2mguard_\w+', file.read())
        text = manual.source(manual.FOLDER + '/p2mguard.3')
        for function in functions:
            for macro in ('.Nm', '.Fn'):
                self.assertRegex(text, rf'(?m)^\{macro} {function}\b', f'{macro} {function}')

    def test_pages_are_installed(self):
        folder = install()
        self.addCleanup(shutil.rmtree, folder)
        installed = {name for _, _, names in os.walk(folder + '/usr/share/man') for name in names}
        self.assertEqual(installed, {os.path.basename(page) for page in manual.pages()})


for path in manual.pages():
    setattr(Examples, 'test_' + re.sub(r'\W', '_', os.path.basename(path)), lambda self, page=path: self.run_page(page))
