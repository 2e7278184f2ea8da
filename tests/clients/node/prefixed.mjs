// Clients that look for a browser at the root of an address, and how they find one below a prefix: the samples of
// docs/clients.md.
import CDP from 'chrome-remote-interface';
import puppeteer24 from 'puppeteer-core-24';
import {task} from './flow.mjs';

const {endpoint} = await task();
const root = new URL(endpoint.replace(/^ws/, 'http'));

async function remoteInterface() {
  const client = await CDP({
    host: root.hostname,
    port: root.port || (root.protocol === 'https:' ? 443 : 80),
    secure: root.protocol === 'https:',
    // Asked for the websocket as well, whose address has the prefix already.
    alterPath: (path) => path.startsWith(root.pathname) ? path : root.pathname + path,
  });
  const {result} = await client.Runtime.evaluate({expression: '20 + 22'});
  await client.close();
  return result.value;
}

async function remoteInterfaceAtBrowser() {
  const client = await CDP({target: endpoint, local: true});
  const {product} = await client.Browser.getVersion();
  await client.close();
  return product;
}

async function puppeteerAtRoot() {
  try {
    await (await puppeteer24.connect({browserURL: root.href})).disconnect();
  } catch (error) {
    return error.message;
  }
}

async function puppeteer() {
  const browser = await puppeteer24.connect({browserWSEndpoint: endpoint, defaultViewport: null});
  const page = await browser.newPage();
  const answer = await page.evaluate('20 + 22');
  await page.close();
  await browser.disconnect();
  return answer;
}

const outcome = {
  remoteInterface: await remoteInterface(),
  remoteInterfaceAtBrowser: await remoteInterfaceAtBrowser(),
  puppeteer: await puppeteer(),
  puppeteerAtRoot: await puppeteerAtRoot(),
};
process.stdout.write(JSON.stringify(outcome) + '\n');
