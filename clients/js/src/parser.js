// The interpretation of an event stream, after WHATWG HTML, section 9.2.6:
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

/** Characters of one block, at most: whoever sends more without an end is no gateway. */
const BLOCK_CHARACTERS_MAX = 64 << 20;

/**
 * One block that was completed. Without `data` a page would raise no event for it, but its id counts.
 *
 * @typedef {{ type: string, data: string | undefined, id: string | undefined }} Block
 */

/** Takes bytes as they come, cut anywhere. */
export class EventStreamParser {
  /** The reconnection time that the stream has asked for, in milliseconds. @type {number | undefined} */
  retry;
  // It takes a leading byte order mark away, and keeps the beginning of a character for the next chunk.
  #decoder = new TextDecoder();
  #line = '';
  #afterCr = false;
  #type = '';
  /** @type {string | undefined} */
  #data;
  /** @type {string | undefined} */
  #id;
  #hasFields = false;

  /**
   * The blocks that these bytes complete.
   *
   * @param {Uint8Array} bytes
   * @returns {Block[]}
   */
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    /** @type {Block[]} */
    const blocks = [];
    if (!text) return blocks;
    if (this.#afterCr && text[0] === '\n') text = text.slice(1);
    this.#afterCr = text.endsWith('\r');
    let from = 0;
    for (const end of text.matchAll(/\r\n?|\n/g)) {
      const line = this.#line + text.slice(from, end.index);
      this.#line = '';
      from = /** @type {number} */ (end.index) + end[0].length;
      if (line) this.#field(line);
      else if (this.#hasFields) blocks.push(this.#end());
    }
    this.#line += text.slice(from);
    if (this.#line.length + (this.#data ?? '').length > BLOCK_CHARACTERS_MAX) throw new Error('a block without an end');
    return blocks;
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value[0] === ' ') value = value.slice(1);
    this.#hasFields = true;
    if (name === 'data') this.#data = this.#data === undefined ? value : `${this.#data}\n${value}`;
    else if (name === 'event') this.#type = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
  }

  /** @returns {Block} */
  #end() {
    const block = { type: this.#type, data: this.#data, id: this.#id };
    this.#type = '';
    this.#data = this.#id = undefined;
    this.#hasFields = false;
    return block;
  }
}
