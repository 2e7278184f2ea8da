import {chromium} from 'playwright-core';
import {run} from './flow.mjs';

async function drive(endpoint, pages) {
  let browser = await chromium.connectOverCDP(endpoint);
  const page = await browser.contexts()[0].newPage();
  await page.goto(`${pages}/form`);
  await page.locator('#name').pressSequentially('Ada');
  await page.click('#greet');
  const greeting = await page.textContent('#result');
  const evaluated = await page.evaluate(([a, b]) => a + b, [20, 22]);

  const noise = await browser.contexts()[0].newPage();
  await noise.goto(`${pages}/noise`);
  const screenshot = await noise.screenshot({fullPage: true});
  await noise.close();
  await browser.close(); // Of a browser that was connected to, this ends the connection alone.

  browser = await chromium.connectOverCDP(endpoint);
  const again = browser.contexts()[0].pages().find((page) => page.url() === `${pages}/form`);
  await again.click('#greet');
  const state = await again.textContent('#result');
  await again.close();
  await browser.close();
  return {greeting, evaluated, screenshot: screenshot.toString('base64'), state};
}

async function attach(endpoint) {
  const browser = await chromium.connectOverCDP(endpoint);
  await browser.close();
}

await run({drive, attach});
