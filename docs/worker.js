// Search in pages that are opened as files. Browsers start no worker from a file, so one is played by a hidden frame:
// it has the same script and the same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = (this.inside = frame.contentWindow);
      const tell = (data) => this.answer(data);
      inside.postMessage = tell;
      inside.importScripts = () => {
        throw new Error("a frame in place of a worker imports no scripts");
      };
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      script.onload = () => {
        this.waiting.splice(0).forEach((data) => this.deliver(data));
        this.waiting = null;
      };
      script.onerror = () => this.dispatchEvent(new ErrorEvent("error", { filename: script.src }));
      inside.document.head.append(script);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.deliver(data);
    }

    deliver(data) {
      const copy = structuredClone(data); // as between a page and a worker, nothing is shared
      setTimeout(() => this.inside.dispatchEvent(new MessageEvent("message", { data: copy })));
    }

    answer(data) {
      const copy = structuredClone(data);
      setTimeout(() => {
        const event = new MessageEvent("message", { data: copy });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      });
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
