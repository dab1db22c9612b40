// Calls of the server. The token travels in a header that no other site can send.

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  /** Whether the same call may succeed later. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

const TIMEOUT_MS = 30000;

export class Api {
  constructor(token = "") {
    this.token = token;
    this.base = new URL("api/", document.baseURI);
  }

  async send(method, path, body, keepalive = false) {
    const headers = {};
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await fetch(new URL(path, this.base), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        credentials: "omit",
        keepalive,
        signal: keepalive ? undefined : AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (error) {
      throw new ApiError(0, String(error));
    }
    if (answer.ok) return answer;
    let detail = answer.statusText;
    try {
      detail = (await answer.json()).detail ?? detail;
    } catch {
      // not every proxy answers in JSON
    }
    throw new ApiError(answer.status, detail);
  }

  async call(method, path, body, keepalive) {
    return (await this.send(method, path, body, keepalive)).json();
  }

  /** The bytes of a sound; tried again while the connection is down. */
  async audio(trial, name) {
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await this.send("GET", `audio/${trial}/${name}`);
        return await answer.arrayBuffer();
      } catch (error) {
        const passes = !(error instanceof ApiError) || error.passes;
        if (!passes || attempt >= 5) throw error;
        await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
      }
    }
  }
}
