# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon is killed, or loses xenstored, before and after each call that changes anything: all ends restored exactly.

p2mguardd-faulty (tests/imitation/faults.c) counts the calls: writes, removals and permissions in xenstore, the begin and
the end of transactions, max_pages. A scenario is run once to count its calls, and then once for each cell: a call, and
what happens there. P2MGUARD_LONG=1 leaves no cell out; the short form says which it does.
"""
import collections
import itertools
import mmap
import os
import queue
import struct
import threading
import time
import unittest

from fixture import KIND, SANITIZED, SUSPENDED, Client, Host, RpcError, StoreError, wait_until
from test_asking import Agent

LONG = os.environ.get('P2MGUARD_LONG') == '1'
LANES = int(os.environ.get('P2MGUARD_LANES', '6'))
FOLDER = '/tool/p2mguard/migrate'
QUICK = {'quiet_ms': 20, 'settle_ms': 20, 'rest_ms': 0, 'retry_backoff_ms': 0, 'agent_wait_ms': 2000}
# What a caller may be told when xenstored is away.
STORE_AWAY = (-32001, -32003, -32004, -32005, -32006, -32007)

KILLS = {'killed before': 1, 'killed after': 2}
CUTS = {'cut before': 3, 'cut after': 4, 'cut unanswered': 5}


class Faults:
    """The file that says where the daemon fails; the layout is tests/imitation/faults.c's."""
    NAMES, NAME = 1024, 64

    def __init__(self, path):
        self.path = path
        with open(path, 'wb') as file:
            file.truncate(64 + self.NAMES * self.NAME)
        with open(path, 'r+b') as file:
            self.map = mmap.mmap(file.fileno(), 0)

    def arm(self, at=0, how=0):
        """From now on calls are counted anew; nothing happens at the 0-th."""
        struct.pack_into('QQII', self.map, 0, 0, at, how, 0)

    def stay(self):
        struct.pack_into('Q', self.map, 8, 0)

    def calls(self):
        return struct.unpack_from('Q', self.map, 0)[0]

    def kills(self):
        return struct.unpack_from('I', self.map, 16)[0] in KILLS.values()

    def fired(self):
        return struct.unpack_from('I', self.map, 20)[0] != 0

    def name(self, call):
        start = 64 + (call - 1) % self.NAMES * self.NAME
        return self.map[start:start + self.NAME].split(b'\0', 1)[0].decode()


class FaultyHost(Host):
    program = 'p2mguardd-faulty'

    def __init__(self):
        self.faults = None
        super().__init__('[daemon]\nmax_gap_ms = 10000\npoll_interval_ms = 5\nwatch_helpers = no\n')

    def start_daemon(self, wait=True):
        if not self.faults:
            self.faults = Faults(self.folder + '/faults')
            self.environment['P2MGUARD_FAULTS'] = self.faults.path
        super().start_daemon(wait)

    def tree(self, path):
        """All that is there, byte for byte."""
        nodes, left = {}, [path]
        while left:
            path = left.pop()
            try:
                nodes[path] = (self.store.request('READ', path), self.store.perms(path))
            except StoreError:
                continue
            left += [f'{path}/{name}' for name in self.store.list(path)]
        return nodes

    def dead(self):
        return self.daemon.poll() is not None

    def answers(self):
        try:
            Client(self.control).close()
            return True
        except OSError:
            return False


class Over(Exception):
    """Nothing more comes of the session: the daemon was killed, or could not go on without xenstored."""


class Run:
    """One scenario in one cell: the domains that it made, and what becomes of them in the end."""

    def __init__(self, host, domid):
        self.host, self.domid, self.name = host, domid, f'u{domid}'
        self.wanted, self.domains, self.agents = {}, [], []
        self.client = None

    # ---- the toolstack ----

    def create(self, domid=None, **options):
        domid = domid or self.domid
        self.host.create(domid, **options)
        self.domains.append(domid)
        self.wanted[domid] = {'target': '262144', 'max_pages': 262144 // 4 + 256,
                              'balloons': options.get('mode') != 'deaf',
                              'tree': self.host.tree(f'/local/domain/{domid}')}

    def destroy(self, domid):
        self.domains.remove(domid)
        self.wanted.pop(domid, None)
        self.host.destroy(domid)

    def write_target(self, kib):
        self.host.store.write(f'/local/domain/{self.domid}/memory/target', str(kib))
        self.wanted[self.domid]['target'] = str(kib)

    def write_max_pages(self, pages):
        self.host.machine.set(self.domid, 'max_pages', pages)
        self.wanted[self.domid]['max_pages'] = pages

    def mem_set(self, kib):
        self.write_max_pages(kib // 4 + 256)
        self.write_target(kib)

    def expect_perms(self, node, perms):
        tree, path = self.wanted[self.domid]['tree'], f'/local/domain/{self.domid}/{node}'
        tree[path] = (tree.get(path, (b'',))[0], perms)

    # ---- waiting ----

    def wait(self, condition, what, timeout=40):
        """Until it is true; Over when it cannot become true any more, because the session has ended."""
        def or_over():
            if condition():
                return True
            if self.host.dead() or str(self.domid) not in self.host.journals():
                if condition():  # it may have come true and be over since
                    return True
                raise Over(what)
            return False
        wait_until(or_over, timeout, what)

    def wait_pinned(self):
        self.wait(lambda: (self.host.target(self.domid) or '').startswith('0'), 'the pin')

    def wait_capped(self):
        self.wait(lambda: self.host.machine.get(self.domid, 'max_pages') == self.host.tot_pages(self.domid), 'the cap')

    # ---- the caller ----

    def connect(self):
        if self.client:
            self.client.close()
        self.client = Client(self.host.control)

    def call(self, method, **params):
        return self.client.call(method, timeout=30, **params)

    def hold(self, hold='connection', **policy):
        self.session = self.call('guard.begin', domain=self.domid, wait=True, hold=hold,
                                 policy=dict(QUICK, **policy))['session']

    def verdict(self):
        return self.call('guard.verdict', session=self.session)['verdict']

    def end(self, outcome='failed'):
        self.call('guard.end', session=self.session, outcome=outcome)

    def node(self, leaf=''):
        return self.host.store.read_or_none(f'{FOLDER}/{self.domid}{leaf}')

    def ask(self, request):
        self.host.store.write(f'{FOLDER}/{self.domid}', request)

    def wait_verdict(self, *beginnings):
        """Over with any other final answer."""
        def there():
            verdict = self.node('/verdict') or ''
            if verdict.startswith(('abort', 'error')) or self.host.dead():
                raise Over(verdict)
            return verdict.startswith(beginnings)
        wait_until(there, 40, f'{beginnings} at {self.node("/verdict")}')

    # ---- the end ----

    def clean_up(self):
        for agent in self.agents:
            agent.stop()
        if self.client:
            self.client.close()
        for domid in list(self.domains):
            self.destroy(domid)


# ---- the scenarios: `prepare` is not counted, `act` is; `finish` is what a caller does who finds the daemon anew ----

class Scenario:
    name = None
    kills_from = 1      # earlier calls are another scenario's
    doubles = False     # the daemon that recovers is killed as well
    writes_while_dead = False

    def prepare(self, run):
        run.create()

    def act(self, run):
        raise NotImplementedError

    def while_dead(self, run):
        if self.writes_while_dead:
            run.write_target(262912)

    def finish(self, run):
        pass


class Quiet(Scenario):
    name = 'a hold and its end'

    def act(self, run):
        run.hold()
        run.verdict()
        run.end()


class AtRest(Scenario):
    name = 'a guest at rest'

    def prepare(self, run):
        run.create()
        run.connect()
        wait_until(lambda: run.call('domain.show', domain=run.domid)['target_steady_ms'] >= 20, what='steady')

    def act(self, run):
        run.hold(rest_ms=20)
        run.verdict()
        run.end()


class Deferred(Scenario):
    name = 'targets written while held'
    doubles = True

    def act(self, run):
        run.hold()
        run.write_target(262400)
        run.wait_pinned()
        run.verdict()
        run.write_target(262656)
        run.wait_pinned()
        run.end()


class WrittenWhileDead(Deferred):
    name = 'and one while no daemon runs'
    doubles = False
    writes_while_dead = True


class MaxPages(Scenario):
    name = 'max_pages set while held'
    doubles = True

    def act(self, run):
        run.hold()
        run.write_max_pages(70000)
        run.wait_capped()
        run.mem_set(262400)
        run.wait_pinned()
        run.wait_capped()
        run.end()


class Retry(Scenario):
    name = 'a second attempt'

    def prepare(self, run):
        run.create(mode='deaf')  # nothing but the test changes its size

    def act(self, run):
        run.hold()
        run.host.machine.set(run.domid, 'tot_pages', 65530)
        run.verdict()
        run.write_target(262400)
        run.wait_pinned()
        run.call('guard.retry', session=run.session)
        run.verdict()
        run.end()


class Asked(Scenario):
    name = 'an agent asked'
    doubles = True

    def prepare(self, run):
        run.create()
        run.agents.append(Agent(run.host, run.domid))

    def act(self, run):
        run.hold(require='agent')
        run.verdict()
        run.end()


class Renewed(Asked):
    name = 'its lease renewed'
    doubles = False

    def act(self, run):
        run.hold(require='agent', agent_lease_ms=1000)
        before = run.host.faults.calls()
        self.kills_from = before + 1
        run.wait(lambda: run.host.faults.calls() > before, 'a renewal')
        run.end()


class HandedOver(Scenario):
    """The guest's new domain has read the pin's number from the old one's configuration, as libxl does."""
    name = 'a new domain on this host'
    doubles = True
    destroys = False

    @staticmethod
    def create_heir(run):
        heir = 2000 + run.domid
        run.create(heir, name=run.name + '--incoming', uuid=run.host.domains[run.domid])
        run.wanted[heir].update(target='262400', max_pages=262400 // 4 + 256)
        return heir

    def act(self, run):
        run.hold()
        run.mem_set(262400)
        run.wait_pinned()
        run.wait_capped()
        heir = self.create_heir(run)
        run.wait(lambda: run.host.target(heir) != '262144', 'the mark')
        if self.destroys:
            run.destroy(run.domid)
        run.end('completed')


class HandedOverAndGone(HandedOver):
    name = 'and the old one gone'
    destroys = True


class WishedThen(HandedOver):
    """Until then the new domain is not marked, for there is nothing to be told from the pin."""
    name = 'a new domain on this host, and a wish after it'

    def act(self, run):
        run.hold()
        heir = self.create_heir(run)
        run.mem_set(262400)
        run.wait(lambda: run.host.target(heir) != '262144', 'the mark')
        run.wait_pinned()
        run.wait_capped()
        run.end('completed')


class StillBuilt(HandedOver):
    """libxl writes the new domain's target when its memory has arrived, whoever has been killed meanwhile."""
    name = 'a new domain that is being built'

    def prepare(self, run):
        run.create()
        run.heir = run.killed = None

    def act(self, run):
        run.hold()
        run.heir = 2000 + run.domid
        run.create(run.heir, name=run.name + '--incoming', uuid=run.host.domains[run.domid], introduce=False)
        run.host.store.remove(f'/local/domain/{run.heir}/memory/target')
        self.kills_from = run.host.faults.calls() + 1
        run.mem_set(262400)
        run.wanted[run.heir].update(target='262400', max_pages=262400 // 4 + 256, balloons=False)
        run.wait_pinned()
        run.wait_capped()
        self.complete(run)
        run.wait(lambda: run.host.target(run.heir) != '262144', 'the mark')
        run.end('completed')

    @staticmethod
    def complete(run):
        path = f'/local/domain/{run.heir}/memory/target'
        run.host.store.write(path, '262144')
        run.host.store.set_perms(path, f'n0,r{run.heir}')
        run.host.introduce(run.heir)

    def while_dead(self, run):
        run.killed = True

    def finish(self, run):
        if run.heir and run.host.target(run.heir) is None:
            if run.killed:
                self.complete(run)
            else:
                run.destroy(run.heir)  # the caller has given up
        wait_until(lambda: not run.host.journals(), 40, 'the journals gone')


class Nodes(Scenario):
    name = 'a caller in xenstore'
    doubles = True

    def act(self, run):
        run.ask('begin quiet_ms=20 settle_ms=20 rest_ms=0')
        run.wait_verdict('held', 'retry')
        run.ask('verdict')
        run.wait_verdict('proceed', 'retry')
        run.write_target(262400)
        run.wait_pinned()
        run.ask('end failed')
        wait_until(lambda: run.host.dead() or run.node() is None, 40, 'the end taken')

    def finish(self, run):
        if run.node() is not None:
            run.ask('end failed')
        wait_until(lambda: run.node() is None, 40, 'the node gone')


class ClientGone(Scenario):
    name = 'a client that vanishes'

    def act(self, run):
        run.hold()
        run.write_target(262400)
        run.wait_pinned()
        run.connect()
        run.wait(lambda: str(run.domid) not in run.host.journals(), 'the thaw')


class Deadline(Scenario):
    name = 'a deadline'

    def act(self, run):
        run.hold(hold='detached', max_hold_ms=1000)
        run.write_target(262400)
        run.wait_pinned()
        self.kills_from = run.host.faults.calls() + 1
        run.wait(lambda: str(run.domid) not in run.host.journals(), 'the thaw')


class Stopped(Scenario):
    name = 'a daemon told to stop'

    def act(self, run):
        run.hold(hold='detached')
        run.write_target(262400)
        run.wait_pinned()
        self.kills_from = run.host.faults.calls() + 1
        run.host.daemon.terminate()
        run.host.daemon.wait(30)


class Permissions(Scenario):
    """Unusual ones, private nodes, nodes made meanwhile, and an administrator who opens the gate."""
    name = 'permissions'

    def prepare(self, run):
        run.create(mode='deaf')
        home, store = f'/local/domain/{run.domid}/memory', run.host.store
        store.write(home + '/private', 'x')
        for path, perms in ((home, f'n0,r{run.domid},w0'), (home + '/target', f'r0,n0,b{run.domid}'),
                            (home + '/private', 'n0')):
            store.set_perms(path, perms)
        run.wanted[run.domid]['tree'] = run.host.tree(f'/local/domain/{run.domid}')

    def act(self, run):
        path, store = f'/local/domain/{run.domid}/memory', run.host.store
        run.hold()
        store.write(path + '/newborn', 'y')
        run.wanted[run.domid]['tree'][path + '/newborn'] = (b'y', f'n0,r{run.domid},w0')
        store.set_perms(path + '/target', f'n0,r{run.domid}')
        run.wait(lambda: store.perms(path + '/target') == 'n0', 'the gate shut')
        run.end()


class Suspended(Scenario):
    """The client hands the session over and goes; it ends when the guest runs again."""
    name = 'adopted by the daemon'

    def act(self, run):
        run.hold()
        run.host.machine.set(run.domid, 'flags', SUSPENDED)
        run.call('guard.adopt', session=run.session, hold='suspended')
        run.client.close()
        run.client = None
        run.host.machine.set(run.domid, 'flags', 0)
        run.wait(lambda: str(run.domid) not in run.host.journals(), 'the thaw')


SCENARIOS = (Quiet, AtRest, Deferred, WrittenWhileDead, MaxPages, Retry, Asked, Renewed, HandedOver, HandedOverAndGone,
             WishedThen, StillBuilt, Nodes, ClientGone, Suspended, Deadline, Stopped, Permissions)


class Lane:
    """A host of its own, on which one cell is run after the other."""

    def __init__(self):
        self.domids = itertools.count(1)
        self.start()

    def start(self):
        self.host = FaultyHost()
        run = Run(self.host, 1999)
        run.create()
        run.connect()
        run.hold()
        run.end()
        run.clean_up()
        self.tool = self.host.tree('/tool/p2mguard')

    def stop(self):
        self.host.faults.arm()
        self.host.stop()

    def renew(self):
        """What a failed cell has left is not to be the next one's failure."""
        try:
            self.stop()
        finally:
            self.start()

    # ---- one cell ----

    def act(self, scenario, run):
        try:
            scenario.act(run)
        except (Over, EOFError, ConnectionError):
            pass
        except RpcError as error:
            if error.code not in STORE_AWAY:
                raise

    def restart(self, double=(0, 0)):
        """True when the new daemon was killed as well."""
        self.host.daemon.wait()
        self.host.faults.arm(*double)
        self.host.start_daemon(wait=False)
        wait_until(lambda: self.host.dead() or self.host.answers(), 40, 'the daemon')
        self.disarm()
        return self.host.dead()

    def disarm(self):
        """What comes from now on is not meant. Whether the daemon is dead is certain afterwards."""
        faults = self.host.faults
        faults.stay()
        if faults.fired() and faults.kills():
            self.host.daemon.wait()

    def end_sessions(self, run):
        """Of a caller whose call has failed, and who gives up."""
        run.connect()
        for session in run.call('guard.list')['sessions']:
            try:
                run.call('guard.end', session=session['session'], outcome='cancelled')
            except RpcError as error:
                if error.code not in STORE_AWAY:
                    raise
        wait_until(lambda: not self.host.journals(), 40, 'the journals gone')
        wait_until(lambda: self.has_store(run), 40, 'the connection')

    @staticmethod
    def has_store(run):
        """A connection that was cut shows on the next question at the latest, of which the next cell has none to spare."""
        try:
            run.call('domain.list')
        except RpcError as error:
            if error.code not in STORE_AWAY:
                raise
            return False
        return True

    def compare(self, run):
        for domid in run.domains:
            wanted, home = run.wanted[domid], f'/local/domain/{domid}'
            tree = {path: node for path, node in self.host.tree(home).items() if '/data/p2mguard' not in path}
            expected = {path: node for path, node in wanted['tree'].items() if '/data/p2mguard' not in path}
            path = home + '/memory/target'
            expected[path] = (wanted['target'].encode(), expected[path][1])
            differ = {path: (tree.get(path), expected.get(path))
                      for path in tree.keys() | expected.keys() if tree.get(path) != expected.get(path)}
            if differ:
                raise AssertionError(f'domain {domid}, (is, should be): {differ}')
            max_pages = self.host.machine.get(domid, 'max_pages')
            if max_pages != wanted['max_pages']:
                raise AssertionError(f'domain {domid} has max_pages {max_pages}, not {wanted["max_pages"]}')
            if wanted['balloons']:
                self.host.wait_rest(domid, int(wanted['target']))
        tool = self.host.tree('/tool/p2mguard')
        if tool != self.tool:
            raise AssertionError(f'left below /tool/p2mguard: {tool}')

    def run(self, scenario, at=0, how=0, double=(0, 0)):
        """Returns whether the fault has come, whether the second has, and how many calls there were."""
        run = Run(self.host, next(self.domids) % 1900 + 1)
        try:
            scenario.prepare(run)
            if not run.client:
                run.connect()
            self.host.faults.arm(at, how)
            self.act(scenario, run)
            self.disarm()
            fired, second, calls = self.host.faults.fired(), False, self.host.faults.calls()
            self.what = self.host.faults.name(at) if at else ''
            if self.host.dead():
                scenario.while_dead(run)
                if self.restart(double):
                    second = True
                    self.restart()
                elif double == (0, 0) and at:
                    calls = self.host.faults.calls()  # of the recovery
                self.compare_if(scenario, run)
            else:
                self.end_sessions(run)
            scenario.finish(run)
            self.compare(run)
            return fired, second, calls
        finally:
            self.host.faults.arm()
            run.clean_up()

    def compare_if(self, scenario, run):
        """A new daemon answers when all is put back, and not before; what callers have to tidy up may still be there."""
        if type(scenario).finish is Scenario.finish:
            self.compare(run)


class CrashMatrix(unittest.TestCase):
    totals = collections.Counter()

    @classmethod
    def setUpClass(cls):
        cls.lanes = [Lane() for _ in range(LANES)]
        rule = ('each call, killed before and after it; the connection cut in one of three ways at each third call; a '
                'second kill after each call of the recovery, for every fifth pair; before the hold of deadline, stop '
                'and renewal, where they are like the others, nothing')
        if SANITIZED:
            rule += '; with sanitizers every twelfth of these cells, and of those with two kills every fifth'
        print(f'# {KIND}: ' + ('all cells' if LONG else rule), flush=True)

    @classmethod
    def tearDownClass(cls):
        for lane in cls.lanes:
            lane.stop()
        print(f'# {KIND}: in all ' + ', '.join(f'{count} {what}' for what, count in cls.totals.items()), flush=True)

    def in_lanes(self, cells):
        """Runs (scenario, at, how, double) in all lanes; what failed, and what came of each."""
        todo, results, failed = queue.Queue(), {}, []
        for cell in cells:
            todo.put(cell)
        def work(lane):
            while len(failed) < 5:
                try:
                    cell = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    lane.what = '?'
                    results[cell] = self.try_cell(lane, *cell)
                except BaseException as error:
                    failed.append((cell, lane.what, f'{type(error).__name__}: {error}', lane.host.log_tail(60)))
                    lane.renew()
        threads = [threading.Thread(target=work, args=(lane,)) for lane in self.lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results, failed

    @staticmethod
    def try_cell(lane, scenario, at, how, double):
        """A run may have fewer calls than the one that was counted: then it is tried again."""
        for _ in range(3):
            fired, second, calls = lane.run(scenario, at, how, double)
            if fired or not at:
                break
        return fired, second, calls

    def report(self, failed):
        for (scenario, at, how, double), what, error, log in failed:
            print(f'# FAILED: {scenario.name}: {HOW[how]} call {at} ({what}), then {double}: {error}', flush=True)
            for line in log.splitlines():
                print('#   | ' + line)
        self.assertEqual([(cell[0].name, HOW[cell[2]], cell[1], what, cell[3], error)
                          for cell, what, error, _ in failed], [])

    def count(self, scenario):
        """The most that some runs have had: one has a look more than another now and then."""
        cells = [(scenario, 0, 0, (turn, 0)) for turn in range(3)]
        results, failed = self.in_lanes(cells)
        self.report(failed)
        return max(calls for _, _, calls in results.values())

    def cells(self, scenario, calls):
        first = 1 if LONG else scenario.kills_from
        cells = [(scenario, at, how, (0, 0)) for at in range(first, calls + 1) for how in KILLS.values()]
        if isinstance(scenario, Stopped):
            return cells
        cuts = [(at, how) for at in range(first, calls + 1) for how in CUTS.values()]
        if not LONG:
            cuts = [(at, how) for at, how in cuts if at % 3 == 0 and how == 3 + at // 3 % 3]
        if SANITIZED and not LONG:
            cells, cuts = cells[::12], cuts[::12]
        return cells + [(scenario, at, how, (0, 0)) for at, how in cuts]

    def walk(self, scenario):
        begun = time.monotonic()
        calls = self.count(scenario)
        results, failed = self.in_lanes(self.cells(scenario, calls))
        self.report(failed)
        kills = sum(1 for cell in results if cell[2] in KILLS.values() and results[cell][0])
        cuts = sum(1 for cell in results if cell[2] in CUTS.values() and results[cell][0])
        missed = sorted({cell[1] for cell in results if not results[cell][0]})
        doubles = self.walk_twice(scenario, calls, results) if scenario.doubles else 0
        for what, number in (('killed', kills), ('cut', cuts), ('killed twice', doubles)):
            self.totals[what] += number
        print(f'# {KIND}: {scenario.name}: {calls} calls; {kills} cells killed, {cuts} cut, {doubles} killed twice; '
              f'{time.monotonic() - begun:.1f} s' + (f'; not come to: {missed}' if missed else ''), flush=True)
        self.assertLess(len(missed), max(3, calls // 4))
        self.assertGreater(kills, 0)

    def walk_twice(self, scenario, calls, results):
        """The daemon that puts back is killed as well, at each of its own calls."""
        first = 1 if LONG else scenario.kills_from
        cells = []
        for at in range(first, calls + 1):
            fired, _, recovery = results.get((scenario, at, KILLS['killed after'], (0, 0)), (False, False, 0))
            hows = KILLS.values() if LONG else [KILLS['killed after']]
            if fired:
                cells += [(scenario, at, KILLS['killed after'], (call, how))
                          for call in range(1, recovery + 1) for how in hows]
        if not LONG:
            cells = cells[::25 if SANITIZED else 5]
        results, failed = self.in_lanes(cells)
        self.report(failed)
        return sum(1 for cell in results if results[cell][1])

    @staticmethod
    def is_prepared(host):
        return FOLDER in host.tree('/tool/p2mguard') and host.store.perms(FOLDER) == 'n0'

    def test_first_start(self):
        """On a store that knows nothing of us."""
        begun, lane, cells = time.monotonic(), self.lanes[0], 0
        host = lane.host
        for how in KILLS.values():
            for at in itertools.count(1):
                host.kill_daemon()
                host.store.remove('/tool/p2mguard')
                host.faults.arm(at, how)
                host.start_daemon(wait=False)
                wait_until(lambda: host.dead() or self.is_prepared(host), 40, 'the folder')
                lane.disarm()
                if not host.dead():
                    break
                cells += 1
                lane.restart()
                wait_until(lambda: self.is_prepared(host), 40, 'the folder')
                tree = {path: perms for path, (_, perms) in host.tree('/tool/p2mguard').items()}
                self.assertEqual(tree, {path: 'n0' for path in ('/tool/p2mguard', FOLDER)}, f'call {at}')
        lane.renew()
        self.assertGreater(cells, 3)
        self.totals['killed'] += cells
        print(f'# {KIND}: a first start: {cells} cells killed; {time.monotonic() - begun:.1f} s', flush=True)


HOW = {number: what for what, number in {**KILLS, **CUTS}.items()}
HOW[0] = 'not disturbed'

for kind in SCENARIOS:
    setattr(CrashMatrix, f'test_{kind.__name__}', lambda self, kind=kind: self.walk(kind()))


if __name__ == '__main__':
    unittest.main()
