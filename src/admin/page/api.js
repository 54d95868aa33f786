// What is asked of the gateway. All of it is below api/v1/ of where this page is.

export class Refused extends Error {}

async function answer(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    body = null;
  }
  if (!response.ok) throw new Refused(body && body.error ? body.error : `the gateway answered ${response.status}`);
  return body;
}

function address(path, args) {
  const given = Object.entries(args).filter(([, v]) => v !== '' && v !== null && v !== undefined);
  return `api/v1/${path}${given.length ? `?${new URLSearchParams(given)}` : ''}`;
}

export async function get(path, args = {}) {
  return answer(await fetch(address(path, args), { cache: 'no-store' }));
}

// The field is what a browser sends for no page but this one; credentials are its business.
export async function act(path, args = {}) {
  return answer(await fetch(address(path, args), {
    method: 'POST',
    credentials: 'same-origin',
    headers: { 'X-Tailrace-Action': '1' },
  }));
}
