/** Numbers as the bytes that devices and files hold, and back: little-endian both, as every machine here is. */

/** The bytes of an array or view, where they lie. */
export function bytesOf<Buffer extends ArrayBufferLike>({ buffer, byteOffset, byteLength }: ArrayBufferView<Buffer>): Uint8Array<Buffer> {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The f32 numbers that bytes hold, in memory of their own: bytes may begin anywhere, numbers only at multiples of 4. */
export function f32Of(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

/** As `f32Of`, for u32. */
export function u32Of(bytes: Uint8Array): Uint32Array<ArrayBuffer> {
  return new Uint32Array(Uint8Array.from(bytes).buffer);
}
