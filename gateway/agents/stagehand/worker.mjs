// Carries out one job with Stagehand. Standard input is a socket: the job and answers to calls of tools come in as lines
// of JSON, messages go out (gateway/agents/messages.py). What is printed goes to the log of a process that fails.
//
// Run by Node.js with `--permission --allow-net`: it can write no file and start no process.

import { Stagehand } from '@browserbasehq/stagehand';
import { jsonSchema, tool } from 'ai';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { z } from 'zod';

const DIALOG_LOOK_MS = 200;
const ACTION_CHARACTERS = 500;
const VIEW = { type: 'jpeg', quality: 60 };

const socket = new Socket({ fd: 0 });
// The gateway is gone.
socket.on('close', () => process.exit(0));
socket.on('error', () => process.exit(0));
const lines = createInterface({ input: socket })[Symbol.asyncIterator]();

let limits = { lineBytes: 1024, textCharacters: 1000, screenshotBytes: 0 };
let isOver = false;

function say(message) {
  if (!isOver) socket.write(`${JSON.stringify(message)}\n`);
}

function end(message) {
  if (isOver) return;
  const line = JSON.stringify(message);
  if (Buffer.byteLength(line) + 1 > limits.lineBytes) {
    const size = `The result has ${Buffer.byteLength(line)} bytes, of at most ${limits.lineBytes}.`;
    say({ type: 'failed', kind: 'failed', message: size });
  } else {
    say(message);
  }
  isOver = true;
}

function failed(kind, message) {
  end({ type: 'failed', kind, message: cut(String(message)) });
}

function cut(text, most = limits.textCharacters) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

for (const event of ['uncaughtException', 'unhandledRejection']) {
  process.on(event, (error) => {
    console.error(error);
    failed('failed', error?.message ?? error);
  });
}

/** Options of Stagehand's models: each provider at the relay's address, with its token. */
function modelOptions({ provider, name, address, token }) {
  const path = provider === 'google' ? '/v1beta' : '/v1';
  const options = { apiKey: token, baseURL: address + path };
  if (provider === 'openai-compatible') {
    // Servers that speak OpenAI's protocol have no Responses API.
    return { modelName: `openai/${name}`, openaiEndpointFormat: 'chat', ...options };
  }
  return { modelName: `${provider}/${name}`, ...options };
}

/** Dismiss the dialogs of all pages, also of later ones: Stagehand has no code for them, and an action would wait for ever. */
function dismissDialogs(context) {
  const known = new Set();
  const look = () => {
    for (const page of context.pages()) {
      if (known.has(page.targetId())) continue;
      known.add(page.targetId());
      const session = page.getSessionForFrame(page.mainFrameId());
      session.on('Page.javascriptDialogOpening', () => {
        session.send('Page.handleJavaScriptDialog', { accept: false }).catch((error) => console.error(error.message));
      });
    }
  };
  look();
  // Unreferenced: it alone does not keep the process from ending.
  setInterval(look, DIALOG_LOOK_MS).unref();
}

function pageOf(context, targetId) {
  const pages = context.pages();
  const found = targetId === null ? pages[0] : pages.find((page) => page.targetId() === targetId);
  if (found === undefined) throw new Gone('The page is not open any more.');
  return found;
}

class Gone extends Error {}

const waiting = new Map();
let calls = 0;

/** The job's tools as Stagehand's own; the gateway carries them out. */
function toolsOf(job) {
  return Object.fromEntries(
    job.tools.map((each) => [
      each.name,
      tool({
        description: each.description,
        inputSchema: jsonSchema(each.inputSchema),
        execute: (input) =>
          new Promise((resolve) => {
            const id = String(++calls);
            waiting.set(id, resolve);
            say({ type: 'call', id, tool: each.name, input });
          }),
      }),
    ]),
  );
}

async function hearAnswers() {
  for (let next = await lines.next(); !next.done; next = await lines.next()) {
    const { id, ...answer } = JSON.parse(next.value);
    waiting.get(id)?.(answer.error === undefined ? answer.output : { error: answer.error });
    waiting.delete(id);
  }
}

async function picture(page) {
  const taken = await page.screenshot(VIEW).catch((error) => console.error(error.message));
  return taken && taken.length <= limits.screenshotBytes ? taken.toString('base64') : null;
}

async function step(page, job, number, action, reason) {
  const screenshot = job.screenshots ? await picture(page) : null;
  say({ type: 'step', number, total: number > job.maxSteps ? null : job.maxSteps, action: cut(action), reason: cut(reason), url: page.url(), screenshot });
}

function described({ toolName, input }) {
  const { reasoning, ...rest } = input ?? {};
  return `${toolName} ${cut(JSON.stringify(rest), ACTION_CHARACTERS)}`;
}

async function runAgent(stagehand, page, job, model) {
  const agent = stagehand.agent({
    mode: 'dom',
    model,
    executionModel: model,
    tools: toolsOf(job),
    ...(job.options.systemPrompt ? { systemPrompt: job.options.systemPrompt } : {}),
  });
  let number = 0;
  const result = await agent.execute({
    instruction: job.instruction,
    maxSteps: job.maxSteps,
    page,
    ...(job.schema ? { output: z.fromJSONSchema(job.schema) } : {}),
    ...(job.options.excludeTools ? { excludeTools: job.options.excludeTools } : {}),
    ...(job.options.variables ? { variables: job.options.variables } : {}),
    callbacks: {
      onStepFinish: async ({ toolCalls = [], text, reasoningText }) => {
        const reasons = [text, reasoningText, ...toolCalls.map((call) => call.input?.reasoning)].filter(Boolean);
        await step(page, job, ++number, toolCalls.map(described).join('; ') || 'no action', reasons.join(' '));
      },
    },
  });
  if (!result.success && !result.completed && result.message?.startsWith('Failed to execute task')) {
    throw new Error(result.message);
  }
  const { success, completed, message, output = null } = result;
  return { success, completed, message, output };
}

async function run(stagehand, page, job, model) {
  const { timeoutMs, selector, variables } = job.options;
  const options = { page, ...(timeoutMs ? { timeout: timeoutMs } : {}) };
  const part = selector ? { selector } : {};
  switch (job.method) {
    case 'act': {
      const { success, message, actions } = await stagehand.act(job.instruction, { ...options, ...(variables ? { variables } : {}) });
      await step(page, job, 1, actions.map((each) => each.description).join('; ') || 'no action', message);
      return { success, message, actions };
    }
    case 'observe':
      return stagehand.observe(job.instruction, { ...options, ...part });
    case 'extract':
      return job.schema
        ? stagehand.extract(job.instruction, z.fromJSONSchema(job.schema), { ...options, ...part })
        : stagehand.extract(job.instruction, { ...options, ...part });
    default:
      return runAgent(stagehand, page, job, model);
  }
}

function kindOf(error) {
  if (error instanceof Gone) return 'page';
  for (let each = error; each; each = each.cause ?? each.lastError) {
    if (String(each.name).startsWith('AI_') || each.statusCode !== undefined) return 'model';
  }
  return 'failed';
}

say({ type: 'ready' });
const job = JSON.parse((await lines.next()).value);
limits = job.limits;
hearAnswers();
try {
  const model = modelOptions(job.model);
  const stagehand = new Stagehand({
    env: 'LOCAL',
    localBrowserLaunchOptions: { cdpUrl: job.lease },
    // Nothing of Browserbase's service.
    disableAPI: true,
    // For the steps, the schema and the tools of an agent.
    experimental: true,
    disablePino: true,
    // A failed action is not tried again in another way than was asked for.
    selfHeal: false,
    verbose: 0,
    logger: (line) => console.error(cut(line.message)),
    model,
  });
  await stagehand.init();
  // A promise of Stagehand's may never settle when its browser is gone.
  stagehand.context.conn.onTransportClosed(() => failed('page', 'The browser was closed.'));
  dismissDialogs(stagehand.context);
  end({ type: 'result', value: (await run(stagehand, pageOf(stagehand.context, job.targetId), job, model)) ?? null });
} catch (error) {
  console.error(error);
  failed(kindOf(error), error?.message ?? error);
}
