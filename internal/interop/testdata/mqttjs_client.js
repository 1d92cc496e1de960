// A client with MQTT.js: commands come in as lines of JSON, what happens goes out so. See driver_test.go.
const fs = require('fs')
const mqtt = require('mqtt')

const clients = {}

function say(client, event, more) {
  fs.writeSync(1, JSON.stringify({ client, event, ...more }) + '\n')
}

// An object for user properties, whose values are lists where a name comes more than once.
function toJS(given, more) {
  const p = { ...more }
  if (!given) return p
  if (given.content_type) p.contentType = given.content_type
  if (given.response_topic) p.responseTopic = given.response_topic
  if (given.correlation) p.correlationData = Buffer.from(given.correlation)
  if (given.expiry) p.messageExpiryInterval = given.expiry
  if (given.alias) p.topicAlias = given.alias
  if (given.delay) p.willDelayInterval = given.delay
  if (given.text) p.payloadFormatIndicator = true
  for (const [name, value] of given.user || []) {
    p.userProperties = p.userProperties || {}
    p.userProperties[name] = (p.userProperties[name] || []).concat(value)
  }
  return p
}

function fromJS(p) {
  const out = {
    content_type: p.contentType, response_topic: p.responseTopic, expiry: p.messageExpiryInterval,
    alias: p.topicAlias, text: p.payloadFormatIndicator, identifiers: p.subscriptionIdentifier && [].concat(p.subscriptionIdentifier),
  }
  if (p.correlationData) out.correlation = p.correlationData.toString()
  for (const [name, values] of Object.entries(p.userProperties || {})) {
    for (const value of [].concat(values)) out.user = (out.user || []).concat([[name, value]])
  }
  return out
}

const commands = {
  connect(name, d) {
    const v5 = d.version === 5
    const options = {
      host: '127.0.0.1', port: d.port, protocol: d.ca ? 'mqtts' : 'mqtt', clientId: d.id, clean: d.clean, reconnectPeriod: 0,
      protocolVersion: d.version, protocolId: d.version === 3 ? 'MQIsdp' : 'MQTT',
    }
    if (d.user) Object.assign(options, { username: d.user, password: d.password })
    if (d.ca) options.ca = fs.readFileSync(d.ca)
    if (d.cert) Object.assign(options, { cert: fs.readFileSync(d.cert), key: fs.readFileSync(d.key) })
    if (d.will) {
      options.will = { topic: d.will.topic, payload: Buffer.from(d.will.payload), qos: d.will.qos, retain: d.will.retain }
      if (v5) options.will.properties = toJS(d.will.properties)
    }
    if (v5) options.properties = {}
    if (v5 && d.expiry) options.properties.sessionExpiryInterval = d.expiry
    if (v5 && d.aliases) {
      options.properties.topicAliasMaximum = d.aliases
      options.autoAssignTopicAlias = true
    }
    const c = mqtt.connect(options)
    clients[name] = c
    c.on('connect', (p) => say(name, 'connected', { code: 0, present: Boolean(p.sessionPresent) }))
    c.on('message', (topic, payload, p) => say(name, 'message', {
      topic, payload: payload.toString(), qos: p.qos, retain: p.retain, properties: fromJS(p.properties || {}),
    }))
    c.on('error', (err) => say(name, 'refused', { code: err.code, text: err.message }))
    c.on('close', () => say(name, 'disconnected', {}))
  },
  subscribe(name, d) {
    const options = { qos: d.qos }
    if (d.identifier) options.properties = { subscriptionIdentifier: d.identifier }
    clients[name].subscribe(d.topic, options, (err, granted, p) => say(name, 'subscribed', { codes: p ? p.granted : [err.code || 128] }))
  },
  publish(name, d) {
    const options = { qos: d.qos, retain: d.retain, properties: toJS(d.properties) }
    clients[name].publish(d.topic, d.payload, options, (err) => say(name, 'published', { code: err ? err.code : 0 }))
  },
  disconnect(name) {
    clients[name].end()
  },
}

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const d = JSON.parse(line)
  commands[d.do](d.client, d)
}).on('close', () => process.exit(0))
