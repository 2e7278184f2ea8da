// Starts browserless on a free port with its default settings, with this Chromium, and without the browsers that the
// machine does not have. Prints the port.
//
//     node start.mjs /path/to/chromium sessions
import { mkdtemp, symlink } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import playwright from "playwright-core";

const [executable, sessions] = process.argv.slice(2);
// Its browsers' classes read the path when they are loaded.
playwright.chromium.executablePath = () => executable;
const root = dirname(dirname(fileURLToPath(import.meta.resolve("@browserless.io/browserless"))));
// It reads package.json of the working directory.
process.chdir(dirname(fileURLToPath(import.meta.url)));
const { Browserless, Config } = await import("@browserless.io/browserless");

const folder = await mkdtemp(join(tmpdir(), "browserless-"));
await symlink(join(root, "build", "routes", "chromium"), join(folder, "chromium"));

const free = createServer();
await new Promise((resolve) => free.listen(0, "127.0.0.1", resolve));
const { port } = free.address();
await new Promise((resolve) => free.close(resolve));

const config = new Config();
config.setRoutes(folder);
config.setPort(port);
config.setConcurrent(Number(sessions));
const browserless = new Browserless({ config });
await browserless.start();
console.log(port);
process.once("SIGTERM", async () => {
  await browserless.stop();
  process.exit(0);
});
