// The viewer in a notebook: its page in a frame of its own, which the notebook's styles and keys do not reach and which
// reaches nothing of the notebook. What the page asks goes to the kernel as messages, and the answers' bytes come back.
// A front end is handed to `render` by anywidget (https://anywidget.dev/en/afm/).

interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, call: (...given: never[]) => void): void;
  off(event: string, call: (...given: never[]) => void): void;
}

interface Answer {
  id: string;
  status: number;
  shape: string;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  // Several views of one model hear one another's answers: each asks under a name of its own.
  const own = Math.random().toString(36).slice(2);
  let count = 0;
  let port: MessagePort | null = null;
  const frame = document.createElement("iframe");
  frame.title = "Attention maps";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.style.cssText = "display:block;box-sizing:border-box;width:100%;border:1px solid #8884;border-radius:8px";
  const sized = () => (frame.style.height = `${Number(model.get("height"))}px`);
  sized();

  frame.addEventListener("load", () => {
    port?.close();
    const channel = new MessageChannel();
    port = channel.port1;
    port.onmessage = ({ data }: MessageEvent<{ asked?: string; view?: string }>) => {
      if (data.view !== undefined) {
        model.set("view", data.view);
        model.save_changes();
      }
      if (data.asked !== undefined) model.send({ id: `${own} ${++count}`, asked: data.asked });
    };
    frame.contentWindow?.postMessage({ view: model.get("view") }, "*", [channel.port2]);
  });

  const heard = ({ id, status, shape }: Answer, buffers: DataView[] = []) => {
    if (id !== `${own} ${count}`) return;
    const bytes = buffers[0];
    const body = bytes ? bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) : new ArrayBuffer(0);
    port?.postMessage({ status, shape, body });
  };
  model.on("msg:custom", heard);
  model.on("change:height", sized);
  frame.srcdoc = String(model.get("_page"));
  el.append(frame);
  return () => {
    model.off("msg:custom", heard);
    model.off("change:height", sized);
    port?.close();
    frame.remove();
  };
}

export default { render };
