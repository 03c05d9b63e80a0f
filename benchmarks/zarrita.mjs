// Reads an array of a store with zarrita: its numbers go into a file, and what they are to the standard output, as JSON.
import { writeFileSync } from "node:fs";
import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

const [store, node, out] = process.argv.slice(2);
const array = await zarr.open.v3(zarr.root(new FileSystemStore(store)).resolve(node), { kind: "array" });
const { data, shape } = await zarr.get(array);
writeFileSync(out, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
const fill = array.fillValue ?? array.fill_value ?? null;
console.log(JSON.stringify({ dtype: array.dtype, shape, fill: Number.isNaN(fill) ? null : Number(fill) }));
