import puppeteer from 'puppeteer-core';
import {run} from './flow.mjs';

// The root of a lease over http is where a tool finds the address of the websocket.
const connect = (endpoint) => puppeteer.connect({
  ...(endpoint.startsWith('http') ? {browserURL: endpoint} : {browserWSEndpoint: endpoint}),
  defaultViewport: null,
});

async function drive(endpoint, pages) {
  let browser = await connect(endpoint);
  const page = await browser.newPage();
  await page.goto(`${pages}/form`);
  await page.type('#name', 'Ada');
  await page.click('#greet');
  const greeting = await page.$eval('#result', (element) => element.textContent);
  const evaluated = await page.evaluate((a, b) => a + b, 20, 22);

  const noise = await browser.newPage();
  await noise.goto(`${pages}/noise`);
  const screenshot = await noise.screenshot({fullPage: true, encoding: 'base64'});
  await noise.close();
  await browser.disconnect();

  browser = await connect(endpoint);
  const again = (await browser.pages()).find((page) => page.url() === `${pages}/form`);
  await again.click('#greet');
  const state = await again.$eval('#result', (element) => element.textContent);
  await again.close();
  await browser.disconnect();
  return {greeting, evaluated, screenshot, state};
}

async function attach(endpoint) {
  const browser = await connect(endpoint);
  await browser.disconnect();
}

await run({drive, attach});
