// The README's flow with openapi-fetch, on the types that openapi-typescript makes of the served document.

import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./schema.d.ts";

const task = JSON.parse(readFileSync(0, "utf8")) as { baseUrl: string; apiKey: string };
const api = createClient<paths>({ baseUrl: task.baseUrl, headers: { Authorization: `Bearer ${task.apiKey}` } });

function data<Data>(answer: { data?: Data; error?: { code: string; error: string } }): Data {
  if (answer.data === undefined) throw new Error(`${answer.error?.code}: ${answer.error?.error}`);
  return answer.data;
}

async function browserOf(url: string): Promise<string> {
  const socket = new WebSocket(url);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  socket.onopen = () => socket.send(JSON.stringify({ id: 1, method: "Browser.getVersion" }));
  socket.onmessage = (event) => resolve(JSON.parse(String(event.data)).result.product);
  socket.onerror = () => reject(new Error("the lease's socket failed"));
  try {
    return await promise;
  } finally {
    socket.close();
  }
}

const space = data(await api.POST("/v1/spaces", { body: { name: "generated" } }));
const inSpace = { path: { id: space.id } };
const runtime = data(await api.POST("/v1/spaces/{id}/runtimes", { params: inSpace, body: {} }));
const inRuntime = { path: { id: space.id, runtimeId: runtime.id } };
const lease = data(
  await api.POST("/v1/spaces/{id}/runtimes/{runtimeId}/connections", {
    params: inRuntime,
    body: { protocol: "cdp" },
  }),
);
if (lease.endpoint.type !== "websocket") throw new Error(`an endpoint of type ${lease.endpoint.type}`);
const browser = await browserOf(lease.endpoint.url);
const leases = data(await api.GET("/v1/spaces/{id}/runtimes/{runtimeId}/connections", { params: inRuntime }));
const runs = data(await api.GET("/v1/runs", { params: { query: { status: "active", limit: 10 } } }));
const stopped = data(await api.POST("/v1/spaces/{id}/runtimes/{runtimeId}/stop", { params: inRuntime }));

console.log(
  JSON.stringify({
    browser,
    leases: leases.connections.map((each) => each.id === lease.id),
    runs: runs.runs.map((run) => run.id === runtime.activeRunId),
    status: stopped.status,
  }),
);
