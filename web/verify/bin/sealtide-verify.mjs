#!/usr/bin/env node
import { run } from '../build/src/command.js';

const { exit, out, error } = await run(process.argv.slice(2));
process.stdout.write(out);
process.stderr.write(error);
process.exitCode = exit;
