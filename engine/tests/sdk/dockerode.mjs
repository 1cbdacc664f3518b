// dockerode, unchanged, against the engine at DOCKER_HOST.
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import Docker from 'dockerode';

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });
const say = (what) => console.log('dockerode:', what);

const collected = () => {
  const stream = new PassThrough();
  const chunks = [];
  stream.on('data', (chunk) => chunks.push(chunk));
  return [stream, () => Buffer.concat(chunks).toString()];
};

assert.equal((await docker.version()).ApiVersion, '1.51');
say('the engine answers');

const [out, said] = collected();
const [result, ran] = await docker.run('busybox', ['sh', '-c', 'echo hello; exit 5'], out);
assert.equal(result.StatusCode, 5);
assert.match(said(), /hello/);
await ran.remove();
say('a run gives its output and its code');

const container = await docker.createContainer({
  Image: 'busybox', Cmd: ['cat'], OpenStdin: true, StdinOnce: true, name: 'sdk-js',
});
try {
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, hijack: true });
  const [stdout, typed] = collected();
  container.modem.demuxStream(stream, stdout, stdout);
  await container.start();
  stream.write('typed\n');
  stream.end();
  assert.equal((await container.wait()).StatusCode, 0);
  assert.equal(typed(), 'typed\n');
  say('input arrives, and its end too');
  assert.equal((await container.inspect()).State.Status, 'exited');
  await assert.rejects(container.exec({ Cmd: ['true'] }), { statusCode: 409 });
  say('a refusal is an error with its status');
} finally {
  await container.remove({ force: true });
}

const idle = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '1000'], Labels: { sdk: 'js' } });
try {
  await idle.start();
  const exec = await idle.exec({ Cmd: ['sh', '-c', 'echo in; exit 2'], AttachStdout: true, AttachStderr: true });
  const stream = await exec.start({});
  const [stdout, printed] = collected();
  docker.modem.demuxStream(stream, stdout, stdout);
  await new Promise((resolve) => stream.on('end', resolve));
  assert.equal(printed(), 'in\n');
  assert.equal((await exec.inspect()).ExitCode, 2);
  const listed = await docker.listContainers({ filters: { label: ['sdk=js'] } });
  assert.deepEqual(listed.map((entry) => entry.Id), [idle.id]);
  say('exec gives streams and a code; lists are filtered');
} finally {
  await idle.remove({ force: true });
}
