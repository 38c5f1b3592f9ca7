'use strict';

// Lets a test drive the application of the page: one command per line, and one answer per line, in JSON.

const { randomUUID } = require('node:crypto');
const fs = require('node:fs');
const readline = require('node:readline');
const { Engine } = require('bpmn-engine');
const { pool, outbox, inTransaction, end } = require('./application.cjs');
const { endEvents, conclusion } = require('./conclusions.cjs');

const FLOWS = 'CREATE TABLE IF NOT EXISTS flow'
  + ' (id TEXT PRIMARY KEY, business_key TEXT, state TEXT NOT NULL, workflow TEXT)';

const MODELS = { two_ends: 'two-ends.bpmn' };

/** Starts a process that waits for its task, and stores its state. */
async function start(key, businessKey) {
  const id = randomUUID();
  const engine = new Engine({ name: key, source: fs.readFileSync(MODELS[key] ?? 'expense.bpmn', 'utf8') });
  const { listener } = endEvents();
  const waits = new Promise((resolve) => listener.once('activity.wait', resolve));
  await engine.execute({ listener });
  await waits;
  const state = JSON.stringify(await engine.getState());
  engine.stop();
  await pool.query("INSERT INTO flow VALUES ($1, $2, 'running', $3)", [id, businessKey, state]);
  return { id };
}

/** Resumes a process, and completes its task. */
async function complete(id, { decision = 'approved', ...output }) {
  const { rows } = await pool.query('SELECT workflow FROM flow WHERE id = $1', [id]);
  const state = JSON.parse(rows[0].workflow);
  const engine = new Engine().recover(state);
  const { listener, ids } = endEvents(state);
  listener.once('activity.wait', (task) => {
    if (decision === 'cancelled') {
      engine.stop();
      return;
    }
    task.environment.variables[decision] = true;
    Object.assign(task.environment.output, output);
    task.signal();
  });
  const over = new Promise((resolve, reject) => {
    engine.once('end', () => resolve(true));
    engine.once('stop', () => resolve(false));
    engine.once('error', reject);
  });
  await engine.resume({ listener });
  if (await over) await inTransaction((client) => end(client, id, conclusion(engine, ids)));
  return {};
}

/** Ends a flow in a transaction that is rolled back. */
async function refuse(id) {
  let written;
  try {
    await inTransaction(async (client) => {
      await end(client, id, 'approved');
      ({ rows: [{ written }] } = await client.query('SELECT COUNT(*)::int AS written FROM flowhooks_outbox'));
      throw new Error('not committed, as the test wants it');
    });
  } catch {
    return { written };
  }
  return {};
}

/** Ends a flow in a transaction whose connection breaks before the commit. */
async function lose(id) {
  try {
    await inTransaction(async (client) => {
      await end(client, id, 'approved');
      const { rows: [{ pid }] } = await client.query('SELECT pg_backend_pid() AS pid');
      await pool.query('SELECT pg_terminate_backend($1)', [pid]);
      await new Promise((resolve) => setTimeout(resolve, 300)); // until Node has noticed it
    });
  } catch (error) {
    return { lost: String(error) };
  }
  return {};
}

async function look() {
  const { rows: [{ running }] } = await pool.query("SELECT COUNT(*)::int AS running FROM flow WHERE state = 'running'");
  const { rows } = await pool.query(
    'SELECT flow_instance_id AS id, body, due_at::float AS due_at, tries, problem FROM flowhooks_outbox ORDER BY due_at',
  );
  return { running, outbox: rows };
}

const commands = {
  start,
  look,
  refuse,
  lose,
  complete: (id, variables) => complete(id, variables ?? {}),
  call: async (id, body) => {
    await outbox.add(pool, id, body);
    return {};
  },
  wake: () => {
    outbox.wake();
    return {};
  },
};

async function main() {
  await pool.query(FLOWS);
  await pool.query(fs.readFileSync('table.sql', 'utf8'));
  outbox.start();
  console.log(JSON.stringify({ ready: true }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [word, ...rest] = JSON.parse(line);
    let said;
    try {
      said = await commands[word](...rest);
    } catch (error) {
      said = { error: String(error.stack) };
    }
    console.log(JSON.stringify(said));
  }
  process.exit();
}

main();
