// SPDX-License-Identifier: LGPL-2.1-or-later
// A caller that has jayson. It does what the lines on its standard input say, and answers each with a line of JSON: the
// result, or the error as jayson gives it.
'use strict';
const readline = require('readline');
const jayson = require('jayson');

const client = jayson.Client.tcp({ path: process.argv[2] });
const policy = { quiet_ms: 50, settle_ms: 100 };

const begin = (domain, hold) => ['guard.begin', { domain, hold, policy, wait: true }];

const calls = {
  begin: (domain) => begin(domain, 'detached'),
  'begin-connection': (domain) => begin(domain, 'connection'),
  verdict: (session) => ['guard.verdict', { session }],
  end: (session) => ['guard.end', { session, outcome: 'completed' }],
  show: (session) => ['guard.show', { session }],
  list: () => ['guard.list', []],
  info: () => ['daemon.info', {}],
  discover: () => ['rpc.discover', []],
};

function callBatch(session, answer) {
  const requests = [
    client.request('guard.show', { session }),
    client.request('guard.list', []),
    client.request('guard.show', { session: '1-00000000' }),
  ];
  client.request(requests, (failure, errors, successes) => {
    if (failure) throw failure;
    const results = requests.map(({ id }) => successes.find((reply) => reply.id === id)?.result).slice(0, 2);
    answer({ result: [...results, errors[0].error.code] });
  });
}

function obey(line, answer) {
  const [verb, argument] = line.split(' ');
  if (verb === 'batch') {
    callBatch(argument, answer);
    return;
  }
  const [method, params] = calls[verb](argument);
  client.request(method, params, (failure, error, result) => {
    if (failure) throw failure;
    answer(error ? { error } : { result });
  });
}

readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => obey(line, (answer) => process.stdout.write(JSON.stringify(answer) + '\n')));
