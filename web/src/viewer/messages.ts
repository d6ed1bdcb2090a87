// In a frame there is no server: what the page asks goes through a port to whoever shows the frame, one thing at a time,
// so that what nobody waits for any more is never asked.

import type { Reply } from "./api";

interface Waiting {
  path: string;
  signal: AbortSignal | undefined;
  done: (reply: Reply) => void;
  failed: (error: unknown) => void;
}

export class Messages {
  private readonly waiting: Waiting[] = [];
  private asked: Waiting | null = null;

  constructor(private readonly port: MessagePort) {
    port.onmessage = ({ data }: MessageEvent<Reply>) => {
      this.asked?.done(data);
      this.next();
    };
  }

  readonly ask = (path: string, signal?: AbortSignal): Promise<Reply> =>
    new Promise((done, failed) => {
      this.waiting.push({ path, signal, done, failed });
      if (!this.asked) this.next();
    });

  /** Have the view kept. */
  readonly keep = (view: string): void => this.port.postMessage({ view });

  private next(): void {
    this.asked = null;
    for (let first = this.waiting.shift(); first; first = this.waiting.shift()) {
      if (first.signal?.aborted) {
        first.failed(first.signal.reason);
        continue;
      }
      this.asked = first;
      this.port.postMessage({ asked: first.path });
      return;
    }
  }
}
