/** What the plots show: the looks of the last while, in arrays of a fixed length, which are uPlot's own data. */
export const KEPT = 900; // looks: 15 minutes of one a second
const GAP_S = 3.5; // between two looks that are one line: a busy engine delays a look by a second
const BACK_S = 5; // a clock set back by more begins anew
const MOST_LINES = 96;

/** Written by whoever reads the stream, and by nobody else. */
export class History {
  constructor(kept = KEPT) {
    this.kept = kept;
    this.times = new Float64Array(kept); // seconds since the epoch, ascending
    this.begun = null; // of the first look
    this.unknown = new Array(kept).fill(null); // the line of what was never told
    this.lines = new Map(); // name → {values, silent: looks since it was told}
  }

  /** Seconds since the epoch of the last look; null before the first. */
  get last() {
    return this.begun === null ? null : this.times[this.kept - 1];
  }

  /**
   * Takes a look in. A name that is not in `row` is null; so is a moment in between where looks were missed.
   * @param {number} at seconds since the epoch. A look that is not newer than the last is left out.
   * @param {Record<string, number | null>} row
   */
  note(at, row) {
    if (this.begun !== null && at < this.last - BACK_S) this.forget();
    if (this.begun === null) this.begin(at);
    else if (at <= this.last) return;
    else if (at - this.last > GAP_S) this.push((at + this.last) / 2, {});
    this.push(at, row);
  }

  /** The values of one line, oldest first; always of length `kept`, the same array as long as it is told. */
  line(name) {
    return this.lines.get(name)?.values ?? this.unknown;
  }

  forget() {
    this.begun = null;
    this.lines.clear();
  }

  begin(at) {
    this.begun = at;
    for (let i = 0; i < this.kept; i += 1) this.times[i] = at - this.kept + i;
  }

  push(at, row) {
    this.times.copyWithin(0, 1);
    this.times[this.kept - 1] = at;
    for (const name of Object.keys(row)) {
      if (!this.lines.has(name) && this.lines.size < MOST_LINES) {
        this.lines.set(name, { values: new Array(this.kept).fill(null), silent: 0 });
      }
    }
    for (const [name, line] of this.lines) {
      const value = row[name] ?? null;
      line.values.copyWithin(0, 1);
      line.values[this.kept - 1] = value;
      line.silent = value === null ? line.silent + 1 : 0;
      if (line.silent >= this.kept) this.lines.delete(name); // an engine or a card that is gone
    }
  }
}
