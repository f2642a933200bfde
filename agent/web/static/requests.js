// Requests to this agent, under whatever path a proxy has put it.

const TIMEOUT_MS = 5000;

// Without the name and password that the page's own address may carry: fetch refuses addresses with them.
export const base = new URL("..", location.origin + new URL(import.meta.url).pathname);

export function address(path, query = {}) {
  const made = new URL(path, base);
  for (const [key, value] of Object.entries(query)) if (value != null) made.searchParams.set(key, value);
  return made.href;
}

// The agent answered, and its answer is no.
export class Refusal extends Error {}

export async function ask(path, { query, timeout_ms = TIMEOUT_MS, ...options } = {}) {
  const answer = await fetch(address(path, query), { signal: AbortSignal.timeout(timeout_ms), ...options });
  if (!answer.ok) throw new Refusal(await sentence(answer));
  return answer;
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

// Why a request failed, for people.
export function reason(error) {
  if (error instanceof Refusal) return error.message;
  if (error.name === "TimeoutError") return "The agent did not answer in time.";
  return "The agent cannot be reached.";
}

async function sentence(answer) {
  const isProblem = answer.headers.get("content-type")?.startsWith("application/problem+json");
  const detail = isProblem ? (await answer.json()).detail : `the answer was ${answer.status} ${answer.statusText}`;
  return `${detail.charAt(0).toUpperCase()}${detail.slice(1)}.`;
}
