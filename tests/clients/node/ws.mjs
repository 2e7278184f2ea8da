import WebSocket from 'ws';
import {run} from './flow.mjs';

const LARGEST_MESSAGE = 256 * 1024 * 1024;

// A DevTools client of thirty lines: numbered commands, their answers, and events that somebody waits for.
class Devtools {
  #next = 1;
  #pending = new Map();
  #listeners = new Set();

  static async open(endpoint) {
    const socket = new WebSocket(endpoint, {maxPayload: LARGEST_MESSAGE, perMessageDeflate: false});
    await new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
      socket.once('unexpected-response', async (request, response) => {
        const {socket: connection} = response;
        const body = Buffer.concat(await response.toArray()).toString();
        connection.destroy(); // With a listener for this event, ending the connection is left to us.
        reject(Object.assign(new Error(`HTTP ${response.statusCode}`), {status: response.statusCode, body}));
      });
    });
    return new Devtools(socket);
  }

  constructor(socket) {
    this.socket = socket;
    socket.on('message', (data) => this.#receive(JSON.parse(data)));
    socket.on('close', (code, reason) => {
      for (const {reject} of this.#pending.values()) reject(new Error(`closed with ${code} ${reason}`));
    });
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    this.socket.send(JSON.stringify({id, method, params, sessionId}));
    return new Promise((resolve, reject) => this.#pending.set(id, {resolve, reject}));
  }

  event(method, sessionId) {
    return new Promise((resolve) => {
      const listener = (message) => {
        if (message.method !== method || message.sessionId !== sessionId) return;
        this.#listeners.delete(listener);
        resolve(message.params);
      };
      this.#listeners.add(listener);
    });
  }

  async close() {
    const closed = new Promise((resolve) => this.socket.once('close', resolve));
    this.socket.close(1000);
    await closed;
  }

  #receive(message) {
    if (message.id === undefined) {
      for (const listener of [...this.#listeners]) listener(message);
      return;
    }
    const {resolve, reject} = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.error) reject(new Error(message.error.message));
    else resolve(message.result);
  }
}

async function open(devtools, url) {
  const {targetId} = await devtools.send('Target.createTarget', {url: 'about:blank'});
  const {sessionId} = await devtools.send('Target.attachToTarget', {targetId, flatten: true});
  await devtools.send('Page.enable', {}, sessionId);
  const loaded = devtools.event('Page.loadEventFired', sessionId);
  await devtools.send('Page.navigate', {url}, sessionId);
  await loaded;
  return {targetId, sessionId};
}

async function evaluate(devtools, sessionId, expression) {
  const {result} = await devtools.send('Runtime.evaluate', {expression, returnByValue: true}, sessionId);
  return result.value;
}

async function click(devtools, sessionId, selector) {
  const middle = `(({x, y, width, height}) => ({x: x + width / 2, y: y + height / 2}))
    (document.querySelector('${selector}').getBoundingClientRect())`;
  const at = await evaluate(devtools, sessionId, middle);
  for (const type of ['mousePressed', 'mouseReleased']) {
    await devtools.send('Input.dispatchMouseEvent', {type, ...at, button: 'left', clickCount: 1}, sessionId);
  }
}

const result = (devtools, sessionId) => evaluate(devtools, sessionId, `document.querySelector('#result').textContent`);

async function drive(endpoint, pages) {
  let devtools = await Devtools.open(endpoint);
  const form = await open(devtools, `${pages}/form`);
  await click(devtools, form.sessionId, '#name');
  await devtools.send('Input.insertText', {text: 'Ada'}, form.sessionId);
  await click(devtools, form.sessionId, '#greet');
  const greeting = await result(devtools, form.sessionId);
  const evaluated = await evaluate(devtools, form.sessionId, '20 + 22');

  const noise = await open(devtools, `${pages}/noise`);
  const {cssContentSize} = await devtools.send('Page.getLayoutMetrics', {}, noise.sessionId);
  const clip = {...cssContentSize, scale: 1};
  const shot = {format: 'png', captureBeyondViewport: true, clip};
  const {data: screenshot} = await devtools.send('Page.captureScreenshot', shot, noise.sessionId);
  await devtools.send('Target.closeTarget', {targetId: noise.targetId});
  await devtools.close();

  devtools = await Devtools.open(endpoint);
  const {targetInfos} = await devtools.send('Target.getTargets');
  const {targetId} = targetInfos.find(({url}) => url === `${pages}/form`);
  const {sessionId} = await devtools.send('Target.attachToTarget', {targetId, flatten: true});
  await click(devtools, sessionId, '#greet');
  const state = await result(devtools, sessionId);
  await devtools.send('Target.closeTarget', {targetId});
  await devtools.close();
  return {greeting, evaluated, screenshot, state};
}

async function attach(endpoint) {
  const devtools = await Devtools.open(endpoint);
  await devtools.close();
}

await run({drive, attach});
