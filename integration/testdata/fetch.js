// Fetches a URL through a proxy with node's own modules:
// node fetch.js PROXY_URL CA_FILE URL. A URL of /parrot is asked to switch protocols.
const fs = require('fs'), http = require('http'), https = require('https')

const [proxyURL, ca, target] = process.argv.slice(2)
const proxy = new URL(proxyURL), url = new URL(target)
const headers = { Host: url.host }
const login = proxy.username && { 'Proxy-Authorization': 'Basic ' + Buffer.from(decodeURIComponent(proxy.username) + ':' + decodeURIComponent(proxy.password)).toString('base64') }

function fail (err) {
  console.error(String(err))
  process.exit(1)
}

function print (answer) {
  if (answer.statusCode !== 200) return fail('status ' + answer.statusCode)
  answer.pipe(process.stdout)
}

function throughTunnel (socket) {
  https.get(url, { createConnection: () => require('tls').connect({ socket, servername: '', ca: fs.readFileSync(ca), host: url.hostname }) }, print).on('error', fail)
}

const request = { host: proxy.hostname, port: proxy.port, headers: Object.assign({}, headers, login) }
if (url.protocol === 'https:') {
  request.method = 'CONNECT'
  request.path = url.host
  http.request(request).on('connect', (answer, socket) => answer.statusCode === 200 ? throughTunnel(socket) : fail('status ' + answer.statusCode)).on('error', fail).end()
} else {
  request.path = target
  if (url.pathname === '/parrot') Object.assign(request.headers, { Connection: 'Upgrade', Upgrade: 'parrot' })
  http.request(request, print).on('upgrade', (answer, socket) => {
    socket.pipe(process.stdout)
    socket.write('polly\n')
    socket.once('data', () => socket.end())
  }).on('error', fail).end()
}
