// SPDX-License-Identifier: LGPL-2.1-or-later
// Judges JSON: each line on standard input is an order, each line on standard output what is wrong, as a list of texts.
//
//   {"openrpc": DOCUMENT}               by OpenRPC's own meta-schema, and each schema in it by that of JSON Schema
//   {"learn": {NAME: SCHEMA, ...}}      schemas may refer to each other as NAME
//   {"value": VALUE, "name": NAME}      by one that was learned
'use strict';
const readline = require('readline');
const Ajv = require('ajv');
const Ajv2019 = require('ajv/dist/2019');
const addFormats = require('ajv-formats');
const openrpc = require('@open-rpc/meta-schema').default;
const jsonSchema = require('@json-schema-tools/meta-schema').default;

// Both name https://meta.json-schema.tools/ as what they are written in, which is draft 7 under another name.
const inDraft7 = (schema) => ({ ...schema, $schema: undefined });

function makeDocumentJudge() {
  const ajv = new Ajv({ strict: false, allErrors: true });
  addFormats(ajv);
  ajv.addSchema(inDraft7(jsonSchema), 'https://meta.json-schema.tools');
  return ajv.compile(inDraft7(openrpc));
}

// 2019-09 is the first draft in which "nothing else" can be said of a composed schema. Unknown keywords are refused, and
// so is what else ajv finds odd.
const values = new Ajv2019({ strict: true, strictTypes: false, allErrors: true });
addFormats(values);

const faults = (judge, value) =>
  judge(value)
    ? []
    : judge.errors.map((error) => `${error.instancePath || '/'} ${error.message} ${JSON.stringify(error.params)}`);

let judgeDocument = null;

function obey(order) {
  if ('openrpc' in order) {
    judgeDocument ??= makeDocumentJudge();
    return faults(judgeDocument, order.openrpc);
  }
  if ('learn' in order) {
    for (const [name, schema] of Object.entries(order.learn)) values.addSchema(schema, name);
    for (const name of Object.keys(order.learn)) values.getSchema(name);
    return [];
  }
  const judge = values.getSchema(order.name);
  return judge ? faults(judge, order.value) : [`there is no schema ${order.name}`];
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  let answer;
  try {
    answer = obey(JSON.parse(line));
  } catch (error) {
    answer = [`the judge gave up: ${error.message}`];
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
});
