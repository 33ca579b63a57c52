// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-languages(7): the library's calls for Node.js. Must not do
 * anything else.
 */
/* guide: begin */
#include <forkgate.h>
#include <node_api.h>

static uint32_t domains_of(napi_env env, napi_callback_info info)
{
	napi_value argument;
	uint32_t domains = 0;
	size_t count = 1;

	if (!napi_get_cb_info(env, info, &count, &argument, NULL, NULL))
		napi_get_value_uint32(env, argument, &domains);
	return domains;		/* 0: EINVAL */
}

static napi_value number(napi_env env, int value)
{
	napi_value result = NULL;

	napi_create_int32(env, value, &result);
	return result;
}

static napi_value enter(napi_env env, napi_callback_info info)
{
	return number(env, forkgate_enter(domains_of(env, info)));
}

static napi_value leave(napi_env env, napi_callback_info info)
{
	forkgate_leave(domains_of(env, info));
	return NULL;
}

static napi_value prepare(napi_env env, napi_callback_info info)
{
	return number(env, forkgate_prepare(domains_of(env, info), NULL));
}

static napi_value release(napi_env env, napi_callback_info info)
{
	return number(env, forkgate_release());
}

NAPI_MODULE_INIT()
{
	const napi_property_descriptor calls[] = {
		{ "enter", .method = enter },
		{ "leave", .method = leave },
		{ "prepare", .method = prepare },
		{ "release", .method = release },
	};

	napi_define_properties(env, exports, 4, calls);
	return exports;
}

/* guide: end */
