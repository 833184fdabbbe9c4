const t=performance.now(); const {startTelemetry}=await import('@secateur/telemetry'); const a=performance.now(); const x=await startTelemetry({serviceName:'a',serviceVersion:'1',instanceId:'1'}); console.log('import',(a-t).toFixed(0),'start',(performance.now()-a).toFixed(0));
const { withSpan, SpanName } = await import('@secateur/telemetry');
for (let k=0;k<3;k++){ const b=performance.now(); for(let i=0;i<20000;i++) await withSpan(SpanName.PLAN,{},()=>1); console.log('off us/span',((performance.now()-b)/20).toFixed(2)); }
await withSpan(SpanName.JOB,{attributes:{'secateur.trace.record':true}},async()=>{ const b=performance.now(); for(let i=0;i<20000;i++) await withSpan(SpanName.PLAN,{},()=>1); console.log('on us/span',((performance.now()-b)/20).toFixed(2)); });
