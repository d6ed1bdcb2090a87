// Tiles on this side: asked for in the order of their distance from the middle, a few at a time, kept while there is
// room, and coloured when they are drawn.

import { type At, type TileData, key, tile as fetched } from "./api";

const AT_ONCE = 3;
const ROOM = 256;

export interface Tile {
  data: TileData | null;
  error: string | null;
  /** When it was asked for last, and for which drawing it was wanted last. */
  asked: number;
  wanted: number;
  picture: HTMLCanvasElement | null;
  style: string;
}

interface Waiting {
  id: string;
  at: At;
  z: number;
  x: number;
  y: number;
  far: number;
}

export class Tiles {
  private readonly tiles = new Map<string, Tile>();
  private readonly running = new Map<string, AbortController>();
  private waiting: Waiting[] = [];
  private drawing = 0;
  private readonly wantedNow = new Set<string>();
  private readonly again = new Set<string>();

  /** `arrived` is called with the head's key when a tile is there, or has failed. */
  constructor(private readonly arrived: (head: string) => void) {}

  /** Between `begin` and `end` a drawing says which tiles it wants; what nobody wants any more is not asked for. */
  begin(): void {
    this.drawing += 1;
    this.waiting = [];
    this.wantedNow.clear();
  }

  end(): void {
    for (const [id, control] of this.running) if (!this.wantedNow.has(id)) control.abort();
    this.waiting.sort((a, b) => a.far - b.far);
    this.next();
  }

  /** A tile; if it isn't there it will be asked for. */
  want(at: At, z: number, x: number, y: number, far: number): Tile | null {
    const id = `${key(at)}/${z}/${x}/${y}`;
    this.wantedNow.add(id);
    const tile = this.tiles.get(id) ?? null;
    if (tile) {
      this.tiles.delete(id);
      this.tiles.set(id, tile);
      tile.wanted = this.drawing;
    }
    if ((!tile || this.again.has(id)) && !this.running.has(id)) this.waiting.push({ id, at, z, x, y, far });
    return tile?.data ? tile : null;
  }

  /** A tile if it is there. */
  peek(at: At, z: number, x: number, y: number): Tile | null {
    const tile = this.tiles.get(`${key(at)}/${z}/${x}/${y}`);
    return tile?.data ? tile : null;
  }

  error(at: At): string | null {
    const head = `${key(at)}/`;
    for (const [id, tile] of this.tiles) if (tile.error && id.startsWith(head)) return tile.error;
    return null;
  }

  /** Whether a tile of this head that is in view is known in part only. */
  incomplete(at: At): boolean {
    const head = `${key(at)}/`;
    for (const id of this.wantedNow) {
      const data = this.tiles.get(id)?.data;
      if (data && data.known < data.rows && id.startsWith(head)) return true;
    }
    return false;
  }

  /** Ask again for the tiles of this head that are known in part. */
  refresh(at: At): void {
    const head = `${key(at)}/`;
    for (const [id, tile] of this.tiles) {
      if (id.startsWith(head) && tile.data && tile.data.known < tile.data.rows) this.again.add(id);
    }
  }

  get busy(): boolean {
    return this.running.size > 0 || this.waiting.length > 0;
  }

  private next(): void {
    while (this.running.size < AT_ONCE && this.waiting.length) {
      const asked = this.waiting.shift();
      if (asked) void this.load(asked);
    }
  }

  private async load({ id, at, z, x, y }: Waiting): Promise<void> {
    const control = new AbortController();
    this.running.set(id, control);
    const tile: Tile = { data: null, error: null, asked: Date.now(), wanted: this.drawing, picture: null, style: "" };
    try {
      tile.data = await fetched(at, z, x, y, control.signal);
      this.put(id, tile);
    } catch (error) {
      if (!control.signal.aborted) {
        tile.error = error instanceof Error ? error.message : String(error);
        this.put(id, tile);
      }
    }
    this.running.delete(id);
    this.next();
    this.arrived(key(at));
  }

  private put(id: string, tile: Tile): void {
    this.again.delete(id);
    this.tiles.delete(id);
    this.tiles.set(id, tile);
    for (const [old, { wanted }] of this.tiles) {
      if (this.tiles.size <= ROOM) break;
      if (wanted !== this.drawing) this.tiles.delete(old);
    }
  }
}
