// What the three clients share: the task comes in by stdin, since a lease's URL is a credential and a command line
// can be read by every user of the machine; the result goes out as one line of JSON.

export async function task() {
  let text = '';
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
}

// Runs the mode that was asked for: `drive` (the whole flow) or `attach` (one attempt, which may be refused).
export async function run({drive, attach}) {
  const {mode, endpoint, pages} = await task();
  const result = mode === 'drive' ? await drive(endpoint, pages) : await attempt(attach, endpoint);
  process.stdout.write(JSON.stringify(result) + '\n');
}

async function attempt(attach, endpoint) {
  try {
    await attach(endpoint);
  } catch (error) {
    return {refused: true, message: error.message, status: error.status ?? null, body: error.body ?? null};
  }
  return {refused: false, message: 'attached', status: 101, body: null};
}
