#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws doc/timeline.svg anew: a guest whose toolstack does not stop, from the fixture of the integration tests.

P2MGUARD_BUILD and P2MGUARD_XENSTORED are as for tests/integration/run.
"""
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE + '/../tests/integration')
from fixture import BUILD, Host  # pylint: disable=wrong-import-position

POLICY = {'quiet_ms': 300, 'settle_ms': 500}


def session(host):
    client = host.client()
    host.create(7, name='web', generation=2)
    storm = host.storm(7, targets=(266240, 278528, 258048, 285696, 270336), interval=0.65)
    time.sleep(0.75)  # it is on its way to its second target
    guarded = client.call('guard.begin', domain=7, wait=True, policy=POLICY)['session']
    time.sleep(0.5)
    host.layouts[7].set('p2m_generation', 6)
    host.machine.set(7, 'tot_pages', host.tot_pages(7) - 512)
    time.sleep(0.3)
    client.call('guard.verdict', session=guarded)
    host.machine.set(7, 'tot_pages', host.tot_pages(7) + 512)
    client.call('guard.retry', session=guarded)
    time.sleep(1.2)
    client.call('guard.verdict', session=guarded)
    time.sleep(0.4)
    storm.stop()
    client.call('guard.end', session=guarded, outcome='completed')
    return guarded


def main():
    host = Host()
    try:
        subprocess.run([BUILD + '/p2mguardctl', '--socket', host.control, 'timeline', session(host), '--svg',
                        HERE + '/timeline.svg'], check=True)
    finally:
        host.stop()


main()
