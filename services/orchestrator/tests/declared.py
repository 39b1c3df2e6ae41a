"""The workflows and tools that the tests declare."""

HEAD = """
version: "1"
description: For tests.
roles: [app]
deadlines_seconds: {administrative: 3, standard: 20, complex: 30}
"""
WORKFLOWS = {
    "desk": """
        budget: {model_calls: 2, tool_calls: 2, output_tokens: 300}
        steps:
          - {id: input, kind: screen}
          - {id: route, kind: route, needs: [input], domain: shop}
          - {id: stock, kind: tool, needs: [route], tool: stock, arguments: {product: "{{ request.message }}"}, timeout_seconds: 5}
          - {id: passages, kind: retrieve, needs: [route], collections: [rules], top_k: 2}
          - {id: hours, kind: template, needs: [route], when: route.intent == 'hours', text: "We open at nine, {{ caller.role }}."}
          - id: answer
            kind: generate
            needs: [stock, passages, hours]
            when: hours is none
            task: answer@v1
            adapter: answer@v1
            tier: small
          - {id: release, kind: release, needs: [hours, answer], from: [hours, answer]}
        """,
    "helpful": """
        deadlines_seconds: {administrative: 2, standard: 3, complex: 25}
        budget: {model_calls: 2, tool_calls: 0, output_tokens: 300}
        steps:
          - {id: input, kind: screen}
          - {id: route, kind: route, needs: [input], domain: shop}
          - {id: passages, kind: retrieve, needs: [route], collections: [policies], window_words: 40}
          - {id: answer, kind: generate, needs: [passages], task: answer@v1, tier: small, on_abstain: extract}
          - {id: release, kind: release, needs: [answer], from: [answer]}
        """,
    "hurried": """
        deadlines_seconds: {administrative: 2, standard: 8, complex: 25}
        budget: {model_calls: 0, tool_calls: 0, output_tokens: 1}
        steps:
          - {id: input, kind: screen}
          - {id: route, kind: route, needs: [input], domain: shop, timeout_seconds: 0.5}
          - {id: hours, kind: template, needs: [route], text: "We open at nine."}
          - {id: release, kind: release, needs: [hours], from: [hours]}
        """,
    "cached": """
        budget: {model_calls: 2, tool_calls: 1, output_tokens: 300}
        cache: {ttl_s: 600}
        steps:
          - {id: input, kind: screen}
          - {id: route, kind: route, needs: [input], domain: shop}
          - {id: stock, kind: tool, needs: [route], when: route.intent == 'stock', tool: stock}
          - {id: passages, kind: retrieve, needs: [route], collections: [rules], top_k: 2}
          - {id: answer, kind: generate, needs: [passages, stock], task: answer@v1, adapter: answer@v1, tier: small}
          - {id: release, kind: release, needs: [answer], from: [answer]}
        """,
    "urgent": """
        budget: {model_calls: 0, tool_calls: 1, output_tokens: 10}
        steps:
          - {id: input, kind: screen}
          - {id: route, kind: route, needs: [input], domain: shop}
          - {id: urgent, kind: escalate, needs: [route], when: "'help me' in request.message", reason: urgent_symptom}
          - id: stock
            kind: tool
            needs: [route, urgent]
            tool: stock
            arguments: {product: {pattern: 'S-([0-9]+)', group: 1}}
            on_error: continue
          - id: text
            kind: template
            needs: [stock]
            text: "{% if stock.error is defined %}No stock today.{% else %}{{ stock.rows | length }} rows{% endif %}"
          - {id: release, kind: release, needs: [urgent, text], from: [urgent, text]}
        """,
    "poor": """
        budget: {model_calls: 1, tool_calls: 1, output_tokens: 300}
        steps:
          - {id: input, kind: screen}
          - {id: one, kind: generate, needs: [input], task: chat@v1}
          - {id: two, kind: generate, needs: [one], task: chat@v1}
          - {id: release, kind: release, needs: [two], from: [two]}
        """,
    "chat": """
        budget: {model_calls: 1, tool_calls: 0, output_tokens: 300}
        steps:
          - {id: input, kind: screen}
          - {id: answer, kind: generate, needs: [input], task: chat@v1, tier: small}
          - {id: release, kind: release, needs: [answer], from: [answer]}
        """,
}
TOOLS = "tools: [{name: stock, parameters: {type: object, properties: {product: {type: string}}}}]\n"
